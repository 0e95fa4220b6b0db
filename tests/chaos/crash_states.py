"""Plain files at a power cut: what a program does to a folder, and every state that a cut may leave of it.

`watching` looks at the folder before and after each call of `os` that makes names or syncs, while the real thing
happens. A `Moment` is what is durable by then and what is not; `crash_states` gives everything that may be found after
a cut at that moment. The rules are POSIX's for a file system that orders nothing by itself:

- The bytes of a file are there for certain once it was fsynced; until then none, half or all of them are.
- An entry (made, linked, renamed, removed; folders too) is there for certain once the folder that holds it was fsynced;
  until then any of the changes since may be there or not, on top of each other in the order in which they were made.
- A rename within a folder is one change: there is never neither name.

So a name may be there before its bytes are, and a file without the folder that it was put into is gone.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

_CALLS: Final = ("fsync", "fdatasync", "link", "unlink", "remove", "rename", "replace", "mkdir", "rmdir")
FOLDER: Final = -1

Tree = dict[str, bytes | None]
"""Path relative to the watched folder; None is a folder."""


@dataclass(frozen=True)
class Change:
    """What became of some names of one folder at once: a file's number, FOLDER, or None for nothing."""

    folder: str
    entries: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Moment:
    """`synced` and `seen` are the bytes of files by number; `pending` are changes whose folder was not synced since."""

    label: str
    durable: Mapping[str, int]
    pending: tuple[Change, ...]
    synced: Mapping[int, bytes]
    seen: Mapping[int, bytes]


@dataclass
class _Watcher:
    root: Path
    moments: list[Moment] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _durable: dict[str, int] = field(default_factory=dict)
    _pending: list[Change] = field(default_factory=list)
    _synced: dict[int, bytes] = field(default_factory=dict)
    _seen: dict[int, bytes] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)  # by inode, of files that have a name
    _next: Iterator[int] = field(default_factory=itertools.count)

    def begin(self) -> None:
        """What is there now has long been durable."""
        self.look("begin")
        self._durable, self._synced = dict(self._names), dict(self._seen)
        self._pending.clear()
        self.moments.clear()

    def look(self, label: str) -> None:
        """Find what has changed since the last look, and note the moment."""
        names, seen = self._read()
        changed = sorted(path for path in names.keys() | self._names.keys() if names.get(path) != self._names.get(path))
        # Outer folders first: they were made first.
        for folder in sorted({_parent(path) for path in changed}, key=len):
            entries = tuple((path, names.get(path)) for path in changed if _parent(path) == folder)
            self._pending.append(Change(folder, entries))
        self._names, self._seen = names, seen
        self.moments.append(
            Moment(label, dict(self._durable), tuple(self._pending), dict(self._synced), dict(self._seen))
        )

    def synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path != self.root and self.root not in path.parents:
            return
        relative = "" if path == self.root else str(path.relative_to(self.root))
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            number = self._names[relative]
            self._synced[number] = self._seen[number]
            return
        for change in [each for each in self._pending if each.folder == relative]:
            _apply(self._durable, change)
            self._pending.remove(change)

    def _read(self) -> tuple[dict[str, int], dict[int, bytes]]:
        names: dict[str, int] = {}
        seen: dict[int, bytes] = {}
        numbers: dict[int, int] = {}
        for path in sorted(self.root.rglob("*")):
            relative = str(path.relative_to(self.root))
            if path.is_dir():
                names[relative] = FOLDER
                continue
            inode = path.stat().st_ino
            # An inode without a name may become another file.
            numbers[inode] = names[relative] = self._numbers.get(inode, numbers.get(inode, -1))
            if names[relative] < 0:
                numbers[inode] = names[relative] = next(self._next)
            seen[names[relative]] = path.read_bytes()
        self._numbers = numbers
        return names, seen


@contextlib.contextmanager
def watching(root: Path) -> Iterator[list[Moment]]:
    """The moments of what is done in the folder meanwhile; the last one is when the block ends."""
    watcher = _Watcher(root.resolve())
    watcher.begin()
    with contextlib.ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(mock.patch.object(os, name, _watched(watcher, name, getattr(os, name))))
        yield watcher.moments
    watcher.look("end")


def _watched(watcher: _Watcher, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **options: Any) -> Any:
        watcher.look(f"before {name}")
        result = call(*args, **options)
        if name in ("fsync", "fdatasync"):
            watcher.synced(args[0])
        watcher.look(f"after {name}")
        return result

    return watched


def crash_states(moment: Moment) -> Iterator[Tree]:
    """Every tree that may be found after a cut then; some of them more than once."""
    for kept in itertools.product((False, True), repeat=len(moment.pending)):
        names = dict(moment.durable)
        for change in itertools.compress(moment.pending, kept):
            _apply(names, change)
        names = {path: number for path, number in names.items() if _is_reachable(path, names)}
        files = sorted({number for number in names.values() if number != FOLDER})
        for contents in itertools.product(*(_contents(moment, number) for number in files)):
            found = dict(zip(files, contents, strict=True))
            yield {path: None if number == FOLDER else found[number] for path, number in names.items()}


def put_tree(root: Path, tree: Tree) -> None:
    """Make the folder so."""
    root.mkdir(parents=True)
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(content)


def _contents(moment: Moment, number: int) -> list[bytes]:
    synced, seen = moment.synced.get(number), moment.seen.get(number, b"")
    if synced is not None and (synced == seen or number not in moment.seen):
        return [synced]
    return [synced or b"", seen[: len(seen) // 2], seen]


def _apply(names: dict[str, int], change: Change) -> None:
    for path, number in change.entries:
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


def _is_reachable(path: str, names: Mapping[str, int]) -> bool:
    parent = _parent(path)
    return not parent or (names.get(parent) == FOLDER and _is_reachable(parent, names))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
