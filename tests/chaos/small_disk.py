"""A file system of a few MiB under one module's state folder, filled by a ballast file and freed again.

Promises
- Mounting needs root, or a user namespace of our own: `enter_namespace` starts the program again inside one. Where
  neither is allowed, `CannotMount` says so.
- What is mounted carries the id of the process that did it. `mounted` takes it away at its end, lazily, so that nothing
  that runs there can prevent it; `sweep` takes away what harnesses that died have left.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Final, NoReturn

from tests.chaos.arena import Arena, CellFailed

CANNOT_MOUNT: Final = "cannot mount a small disk: run as root, or where user namespaces are allowed (unshare -rm)"
_SOURCE = "edgeweir-small-disk-"
_BALLAST = "ballast"
_INSIDE = "EDGEWEIR_CHAOS_NAMESPACE"
_ROOM_BYTES = 16 * 1024 * 1024
_STOP_SECS = 20.0


class CannotMount(CellFailed):
    """Neither root nor a user namespace."""


class SmallDisk:
    """A mounted file system; `fill` and `free` change what is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def free_bytes(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes, or what is free if that is less."""
        with (self.folder / _BALLAST).open("ab") as ballast:
            # Somebody else writes at the same time: what is free now may be gone before it is taken.
            while (surplus := self.free_bytes - leave) > 0:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(ballast.fileno(), 0, os.fstat(ballast.fileno()).st_size + surplus)

    def free(self) -> None:
        (self.folder / _BALLAST).unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[SmallDisk]:
    """An empty file system of this many bytes over the folder, gone at the end. Raises CannotMount."""
    _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", f"{_SOURCE}{os.getpid()}", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _unmount(folder)


def sweep() -> None:
    """Take away what a harness that is no more has left mounted."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        source, folder = line.split()[:2]
        owner = source.removeprefix(_SOURCE)
        if source.startswith(_SOURCE) and not Path("/proc", owner).exists():
            _unmount(Path(folder.replace("\\040", " ")))


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotMount(f"{CANNOT_MOUNT}; mount says: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def enter_namespace(module: str) -> None:
    """Without root: start `python -m module` again in a namespace where it may mount. Does nothing for root."""
    if os.geteuid() != 0 and _INSIDE not in os.environ and shutil.which("unshare"):
        probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            _start_again(module)


def _start_again(module: str) -> NoReturn:
    os.environ[_INSIDE] = "yes"
    os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", module, *sys.argv[1:]])


@contextlib.asynccontextmanager
async def on_small_disk(arena: Arena, part: str) -> AsyncIterator[SmallDisk]:
    """The module is killed and starts again with its state on a small disk; at the end the other way round.

    A module that starts while its state moves finds its lock held and ends at once; and it only ever sees the one or
    the other folder whole, because the small disk is filled elsewhere and then bound over the folder in one step.
    """
    sweep()
    folder = arena.site.folder.var(part)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with contextlib.ExitStack() as stack:
        staging = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeweir-small-disk-")))
        disk = stack.enter_context(mounted(staging, 2 * used + _ROOM_BYTES))
        # A way to what will lie below.
        below = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, below)
        async with stopped(arena, part):
            shutil.copytree(folder, staging, dirs_exist_ok=True)
            _empty_log(staging / f"{part}.db")
            _mount("--bind", str(staging), str(folder))
            stack.callback(_unmount, folder)
        try:
            yield disk
        finally:
            disk.free()
            async with stopped(arena, part):
                _replace(Path(f"/proc/self/fd/{below}"), staging)
                _unmount(folder)
        await arena.until(lambda: arena.site.supervisor.pid(part) is not None, f"{part} runs")


@contextlib.asynccontextmanager
async def stopped(arena: Arena, part: str) -> AsyncIterator[None]:
    """The module is dead, and cannot start: its lock is held."""
    with (arena.site.folder.var(part) / f"{part}.lock").open("a") as lock:
        async with asyncio.timeout(_STOP_SECS):
            while not _locked(lock):
                if arena.site.supervisor.send_signal(part, signal.SIGKILL):
                    arena.killed(part)
                await asyncio.sleep(0.02)
        yield


def _empty_log(database: Path) -> None:
    """Move what SQLite's log holds to the database: a log that has room inside would put a full disk off."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _replace(folder: Path, by: Path) -> None:
    """The folder has the other's files and no more."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(by, folder, dirs_exist_ok=True)
