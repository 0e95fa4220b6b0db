"""A disk that forgets at a power cut what was not synced. Pure but for its mirror: no SQLite here.

What it models: each file has the bytes that programs see and the bytes that would be left after a power cut; each
folder entry likewise. Syncing a file makes its bytes durable, syncing a folder its entries; nothing else has to.

What the disk may do of its own accord, when a seed allows it (POSIX promises no more, and SQLite's documentation of
atomic commit assumes no more):
- Any subset of the unsynced sectors of 512 bytes becomes durable, in any order, so a write of several sectors may be
  torn. Within a sector a write is whole, and bytes beside it do not change (SQLite's "powersafe overwrite").
- A file may have grown before the bytes came: the hole then holds garbage.
- An unsynced truncation or folder entry may be durable or not, whatever else is.
It never takes back what was synced and never alters what nobody wrote.
"""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SECTOR = 512


class Mirror(Protocol):
    """Where durable bytes are kept for the next process. Told of each change while the disk is locked."""

    def write(self, path: str, offset: int, data: bytes) -> None: ...

    def resize(self, path: str, size: int) -> None: ...

    def remove(self, path: str) -> None: ...


@dataclass(eq=False)
class File:
    """`seen` is what reads return. Sectors outside of `dirty` are equal in both, as far as both reach."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    path: str | None = None
    """The name under which a power cut would leave it; None while its folder entry is not durable."""

    @property
    def is_synced(self) -> bool:
        return not self.dirty and len(self.seen) == len(self.durable)


OnPoint = Callable[[str], None]


class Disk:
    """`on_point` is called before and after each sync, outside of the lock: the moments at which durable bytes change.

    `leak` is the chance, at each write, that unsynced sectors become durable by themselves; it takes a `seed`.
    """

    def __init__(self, *, seed: int | None = None, leak: float = 0.0, on_point: OnPoint | None = None) -> None:
        self.on_point: OnPoint = on_point or (lambda label: None)
        self.syncs = 0
        self._leak = leak if seed is not None else 0.0
        self._random = random.Random(seed)
        self._mirror: Mirror | None = None
        self._names: dict[str, File] = {}
        self._durable_names: dict[str, File] = {}
        self._lock = threading.RLock()

    # What there is

    def mirror_to(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def put_durable(self, path: str, content: bytes) -> None:
        """A file that was there when the machine started."""
        file = File(bytearray(content), bytearray(content), path=path)
        with self._lock:
            self._names[path] = self._durable_names[path] = file

    def knows(self, path: str) -> bool:
        return path in self._names or path in self._durable_names

    def find(self, path: str) -> File | None:
        return self._names.get(path)

    def image(self, rng: random.Random | None = None) -> dict[str, bytes]:
        """What a power cut now would leave; with `rng`, some of the unsynced besides."""
        with self._lock:
            durable = dict(self._durable_names)
            if rng is None:
                return {path: bytes(file.durable) for path, file in durable.items()}
            for path in self._names.keys() | durable.keys():
                if self._names.get(path) is not durable.get(path) and rng.random() < 0.5:
                    _take_entry(durable, path, self._names.get(path))
            share = rng.random()
            return {path: _leaked(file, rng, share) for path, file in durable.items()}

    # What programs do

    def create(self, path: str) -> File:
        with self._lock:
            file = self._names[path] = File()
            return file

    def delete(self, path: str) -> bool:
        with self._lock:
            return self._names.pop(path, None) is not None

    def write(self, file: File, offset: int, data: bytes) -> None:
        with self._lock:
            end = offset + len(data)
            if offset > len(file.seen):
                self._resize_seen(file, offset)
            file.seen[offset:end] = data
            file.dirty.update(_sectors(offset, end))
            if self._leak and self._random.random() < self._leak:
                self._leak_some()

    def resize(self, file: File, size: int) -> None:
        with self._lock:
            self._resize_seen(file, size)

    def sync(self, file: File) -> None:
        self.syncs += 1
        self.on_point("before sync")
        with self._lock:
            self._make_durable(file)
        self.on_point("after sync")

    def sync_folder(self, folder: str) -> None:
        """The entries of the folder become durable; the bytes of its files do not."""
        with self._lock:
            for path in self._names.keys() | self._durable_names.keys():
                if str(Path(path).parent) == folder:
                    self._make_entry_durable(path)
        self.on_point("after folder sync")

    def write_back(self) -> list[str]:
        """Everything becomes durable, as it is at this moment (as the kernel does every few seconds); what there is."""
        with self._lock:
            for path in self._names.keys() | self._durable_names.keys():
                self._make_entry_durable(path)
            for file in self._names.values():
                self._make_durable(file)
            return list(self._names)

    # How bytes become durable

    def _resize_seen(self, file: File, size: int) -> None:
        grown = size - len(file.seen)
        if grown > 0:
            file.dirty.update(_sectors(len(file.seen), size))
            file.seen.extend(bytes(grown))
        else:
            del file.seen[size:]
            file.dirty = {sector for sector in file.dirty if sector * SECTOR < size}

    def _make_durable(self, file: File) -> None:
        if len(file.durable) > len(file.seen):
            self._shrink(file)
        for start, end in _runs(file.dirty):
            self._copy(file, start * SECTOR, bytes(file.seen[start * SECTOR : end * SECTOR]))
        file.dirty.clear()
        # A file that was cut and grew again has no dirty sector where both hold the same length; sizes agree now.
        assert len(file.durable) == len(file.seen)

    def _copy(self, file: File, offset: int, data: bytes) -> None:
        hole = offset - len(file.durable)
        if hole > 0:
            data, offset = self._random.randbytes(hole) + data, offset - hole
        file.durable[offset : offset + len(data)] = data
        if self._mirror is not None and file.path is not None:
            self._mirror.write(file.path, offset, data)

    def _shrink(self, file: File) -> None:
        del file.durable[len(file.seen) :]
        if self._mirror is not None and file.path is not None:
            self._mirror.resize(file.path, len(file.seen))

    def _make_entry_durable(self, path: str) -> None:
        file, before = self._names.get(path), self._durable_names.get(path)
        if file is before:
            return
        if before is not None:
            before.path = None
            if self._mirror is not None:
                self._mirror.remove(path)
        _take_entry(self._durable_names, path, file)
        if file is not None:
            file.path = path
            if self._mirror is not None:
                self._mirror.write(path, 0, bytes(file.durable))

    def _leak_some(self) -> None:
        for path in sorted(self._names.keys() | self._durable_names.keys()):
            if self._random.random() < 0.1:
                self._make_entry_durable(path)
        share = self._random.random()
        for _, file in sorted(self._names.items()):
            if len(file.durable) > len(file.seen) and self._random.random() < 0.3:
                self._shrink(file)
            for sector in sorted(file.dirty):
                if self._random.random() < share:
                    self._copy(file, sector * SECTOR, bytes(file.seen[sector * SECTOR : (sector + 1) * SECTOR]))
                    file.dirty.discard(sector)


def _leaked(file: File, rng: random.Random, share: float) -> bytes:
    """What is left of a file when some of its unsynced sectors came to the disk."""
    left = bytearray(file.durable)
    if len(left) > len(file.seen) and rng.random() < 0.5:
        del left[len(file.seen) :]
    for sector in sorted(file.dirty):
        if rng.random() < share:
            offset = sector * SECTOR
            if offset > len(left):
                left.extend(rng.randbytes(offset - len(left)))
            data = file.seen[offset : offset + SECTOR]
            left[offset : offset + len(data)] = data
    return bytes(left)


def _take_entry(names: dict[str, File], path: str, file: File | None) -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def _sectors(start: int, end: int) -> range:
    return range(start // SECTOR, (end + SECTOR - 1) // SECTOR)


def _runs(sectors: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring sectors as (first, one after the last)."""
    runs: list[tuple[int, int]] = []
    for sector in sorted(sectors):
        if runs and runs[-1][1] == sector:
            runs[-1] = (runs[-1][0], sector + 1)
        else:
            runs.append((sector, sector + 1))
    return runs
