"""`connect`, with the signature of `sqlite3.connect`, onto a disk that forgets at a power cut what was not synced.

In a process of its own (a module, edgeHub) SIGKILL is the power cut: only durable bytes are in the real files. A clean
exit is none: everything is written back at exit, as the kernel would do later. Such a process takes part when its
`sqlite3.connect` is replaced by `connect`: put the folder `tests/chaos/forgetful_site` on its PYTHONPATH (it has a
`sitecustomize` that does it when the variable below is set; nothing else is patched), or have a build with

    from tests.chaos.forgetful import connect

The environment it reads, once:

    EDGEWEIR_CHAOS_DISK   `name=value` pairs, joined by commas, all optional; "" is the strict disk
        seed=7              the choices of the disk
        leak=0.02           chance, at each write, that unsynced sectors become durable by themselves, torn and in any
                            order (tests.chaos.forgetful_disk says what that covers)
        write_back_secs=1   as the kernel does: at most this often, all that is unsynced becomes durable, in order.
                            Then the file DATABASE.written-back says when the last such moment was (`written_back`)

In one process with the test, `power_supply` puts a disk of the caller's own under `sqlite3.connect` for a while.
"""

import atexit
import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.chaos.forgetful_connection import Connection
from tests.chaos.forgetful_disk import Disk
from tests.chaos.forgetful_vfs import FileMirror, ForgetfulVFS

ENVIRONMENT = "EDGEWEIR_CHAOS_DISK"
SITE = Path(__file__).parent / "forgetful_site"
_ROOT = Path(__file__).parent.parent.parent
_numbers = itertools.count()


@dataclass(frozen=True)
class DiskOptions:
    seed: int = 0
    leak: float = 0.0
    write_back_secs: float = 0.0
    """0: never."""

    @classmethod
    def parse(cls, text: str) -> "DiskOptions":
        pairs = dict(pair.split("=", 1) for pair in text.split(",") if pair)
        options = cls(
            seed=int(pairs.pop("seed", 0)),
            leak=float(pairs.pop("leak", 0)),
            write_back_secs=float(pairs.pop("write_back_secs", 0)),
        )
        if pairs:
            raise ValueError(f"{ENVIRONMENT} has unknown names: {', '.join(pairs)}")
        return options

    def __str__(self) -> str:
        return f"seed={self.seed},leak={self.leak:g},write_back_secs={self.write_back_secs:g}"


def environment(options: DiskOptions) -> dict[str, str]:
    """What a process needs to be on the forgetful disk. Join PYTHONPATH with another one by `os.pathsep`."""
    return {ENVIRONMENT: str(options), "PYTHONPATH": os.pathsep.join((str(SITE), str(_ROOT)))}


def written_back(database: Path) -> float | None:
    """When everything on that disk became durable the last time (`time.monotonic`, the same for all processes)."""
    try:
        return float(_mark(database).read_text())
    except (OSError, ValueError):
        return None


def connect(database: object, timeout: float = 5.0, *more: object, **options: object) -> Connection:
    """As `sqlite3.connect` with `isolation_level=None`; every other option is taken and means nothing."""
    path = Path(os.path.realpath(str(database)))
    return Connection(str(path), vfs=_vfs_of_process().name, timeout=timeout)


@contextlib.contextmanager
def power_supply(disk: Disk, *, synchronous: str | None = None) -> Iterator[None]:
    """What connects meanwhile is on this disk; its real files hold nothing but locks.

    `synchronous` takes the place of the setting that the product asks for, to show what that is there for.
    """
    vfs = ForgetfulVFS(f"forgetful-{next(_numbers)}", disk)

    def connect_here(database: object, timeout: float = 5.0, **options: object) -> Connection:
        return Connection(os.path.realpath(str(database)), vfs=vfs.name, timeout=timeout, synchronous=synchronous)

    with mock.patch.object(sqlite3, "connect", connect_here):
        yield


_process: ForgetfulVFS | None = None
_process_lock = threading.Lock()


def _vfs_of_process() -> ForgetfulVFS:
    global _process
    with _process_lock:
        if _process is None:
            options = DiskOptions.parse(os.environ.get(ENVIRONMENT, ""))
            disk = Disk(seed=options.seed, leak=options.leak)
            disk.mirror_to(FileMirror())
            _process = ForgetfulVFS(f"forgetful-{os.getpid()}", disk)
            atexit.register(disk.write_back)
            if options.write_back_secs:
                arguments = (disk, options.write_back_secs)
                threading.Thread(target=_write_back_forever, args=arguments, daemon=True, name="write-back").start()
        return _process


def _write_back_forever(disk: Disk, every_secs: float) -> None:
    while True:
        time.sleep(every_secs)
        began = time.monotonic()
        for path in disk.write_back():
            if path.endswith(("-wal", "-journal")):
                continue
            mark = _mark(Path(path))
            part = mark.with_suffix(".part")
            part.write_text(repr(began))
            part.replace(mark)


def _mark(database: Path) -> Path:
    return database.with_name(f"{database.name}.written-back")
