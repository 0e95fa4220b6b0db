"""Which errors are the disk's or memory's, so that a message waits for it instead of being rejected."""

import errno
import re
import sqlite3
from typing import Literal

DiskReason = Literal["disk_full", "disk_error"]

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a failing device, a read-only remount, a lost mount or exhausted file descriptors give. Any other error of the
# operating system is one of the module's own doing.
_DISK_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.EROFS,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.EUCLEAN,
        errno.EMEDIUMTYPE,
        errno.ENOMEDIUM,
        errno.EREMOTEIO,
        errno.EMFILE,
        errno.ENFILE,
    }
)

# Native libraries that say in words that an allocation failed. The text alone would not do: it may quote a payload.
_NATIVE_PACKAGES = ("onnxruntime",)
_ALLOCATION_FAILED = re.compile(r"failed to allocate memory|bad[ _]alloc|out of memory", re.IGNORECASE)

# SQLITE_ERROR and the like are faults of the statement, not of the disk.
_DISK_CODES = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOLFS,
    }
)

# SQLite calls it an I/O error when the index of its log cannot grow; a disk that is full is why.
_FULL_CODES = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})

# Somebody holds a lock of the file: another process, or this one when the system refused to release it.
_LOCK_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def disk_reason(error: BaseException) -> DiskReason | None:
    """The reason code when a disk refused, None when the error is another kind of fault."""
    if isinstance(error, OSError):
        if error.errno in _FULL_ERRNOS:
            return "disk_full"
        return "disk_error" if error.errno in _DISK_ERRNOS else None
    if isinstance(error, sqlite3.Error):
        code = _code_of(error)
        if code == sqlite3.SQLITE_FULL or _extended_code_of(error) in _FULL_CODES:
            return "disk_full"
        if code in _DISK_CODES:
            return "disk_error"
    return None


def is_locked(error: BaseException) -> bool:
    """Whether a lock of the file could not be had."""
    return isinstance(error, sqlite3.Error) and _code_of(error) in _LOCK_CODES


def is_lock_lost(error: BaseException) -> bool:
    """Whether SQLite has given up on its own locks, which it does after ten seconds of trying."""
    return isinstance(error, sqlite3.Error) and _code_of(error) == sqlite3.SQLITE_PROTOCOL


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, SQLite, the kernel or a native library that says so."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, sqlite3.Error):
        return _code_of(error) == sqlite3.SQLITE_NOMEM
    is_native = type(error).__module__.partition(".")[0] in _NATIVE_PACKAGES
    return is_native and _ALLOCATION_FAILED.search(str(error)) is not None


def _code_of(error: sqlite3.Error) -> int:
    """The primary result code; an extended one has it in its low byte."""
    return _extended_code_of(error) & 0xFF


def _extended_code_of(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code
