"""How each system call may fail: what the kernel's manual allows and a real machine does.

Left out: calls that cannot fail (getpid, exit), and failures that mean a broken program rather than a broken machine
(EFAULT, EBADF, EINVAL). A call that is made and stands in neither table is reported by name.
"""

from typing import Final

_DISK_READ = ("error=EIO",)
_DISK_WRITE = ("error=EIO", "error=ENOSPC", "error=EDQUOT", "retval=0")
_SOCKET_IN = ("error=ECONNRESET", "error=EINTR", "error=EAGAIN", "error=ETIMEDOUT", "retval=0")
_SOCKET_OUT = ("error=EPIPE", "error=ECONNRESET", "error=EINTR", "error=EAGAIN", "error=ENOBUFS")

FAILURES: Final[dict[str, tuple[str, ...]]] = {
    # Files: SQLite's, and the module's own.
    "pwrite64": _DISK_WRITE,
    "pread64": _DISK_READ,
    "fdatasync": ("error=EIO", "error=ENOSPC", "delay_enter=50000"),
    "fsync": ("error=EIO", "error=ENOSPC", "delay_enter=50000"),
    "ftruncate": ("error=EIO", "error=EROFS"),
    "fallocate": ("error=ENOSPC", "error=EIO"),
    "openat": ("error=EMFILE", "error=EIO", "error=EACCES", "error=ENOSPC", "error=EROFS", "error=ENOMEM"),
    "rename": ("error=EIO", "error=ENOSPC"),
    "unlink": ("error=EIO", "error=EROFS"),
    "mkdir": ("error=ENOSPC",),
    # Of a lock that somebody else holds there are cells of its own; here the locks themselves fail, releasing included.
    "fcntl": ("error=EIO",),
    "newfstatat": ("error=EIO", "error=ENOMEM"),
    "fstat": ("error=EIO", "error=ENOMEM"),
    "lseek": ("error=EIO",),
    "getdents64": ("error=EIO",),
    "flock": ("error=EINTR", "error=ENOLCK"),
    # Sockets, TLS included: OpenSSL reads and writes them as files.
    "read": ("error=EIO", *_SOCKET_IN),
    "write": ("error=EIO", "error=ENOSPC", *_SOCKET_OUT),
    "recvfrom": _SOCKET_IN,
    "recvmsg": _SOCKET_IN,
    "sendto": _SOCKET_OUT,
    "sendmsg": _SOCKET_OUT,
    "socket": ("error=EMFILE", "error=ENFILE", "error=ENOBUFS"),
    "connect": ("error=ECONNREFUSED", "error=ENETUNREACH", "error=ETIMEDOUT", "error=EADDRNOTAVAIL"),
    "accept4": ("error=EMFILE", "error=ECONNABORTED", "error=EINTR"),
    "getsockopt": ("error=ENOBUFS",),
    "setsockopt": ("error=ENOMEM", "error=ENOPROTOOPT"),
    "getsockname": ("error=ENOBUFS",),
    "getpeername": ("error=ENOTCONN",),
    "shutdown": ("error=ENOTCONN",),
    "close": ("error=EIO", "error=EINTR"),
    "ioctl": ("error=EIO",),
    # Waiting, threads, memory.
    "epoll_wait": ("error=EINTR",),
    "epoll_ctl": ("error=ENOMEM", "error=ENOSPC"),
    "poll": ("error=EINTR", "error=ENOMEM"),
    "futex": ("error=EAGAIN", "error=EINTR"),
    "clone3": ("error=EAGAIN", "error=ENOMEM"),
    "clone": ("error=EAGAIN", "error=ENOMEM"),
    "mmap": ("error=ENOMEM",),
    "mprotect": ("error=ENOMEM",),
    "brk": ("error=ENOMEM",),
    "mremap": ("error=ENOMEM",),
    "getrandom": ("error=EINTR", "error=EAGAIN"),
    "clock_nanosleep": ("error=EINTR",),
}

NOT_INJECTED: Final[dict[str, str]] = {
    "munmap": "nobody can act on its failure",
    "madvise": "advice",
    "getpid": "cannot fail",
    "getppid": "cannot fail",
    "gettid": "cannot fail",
    "getuid": "cannot fail",
    "geteuid": "cannot fail",
    "umask": "cannot fail",
    "rseq": "fails only in a broken program",
    "set_robust_list": "fails only in a broken program",
    "rt_sigprocmask": "fails only in a broken program",
    "rt_sigaction": "fails only in a broken program",
    "rt_sigreturn": "not a call that a program makes",
    "restart_syscall": "the kernel's own",
    "exit": "cannot fail",
    "sched_yield": "cannot fail",
    "sched_getaffinity": "fails only in a broken program",
    "prctl": "fails only in a broken program",
}
