"""SQLite on a disk that forgets: a VFS on top of "unix".

Locks and the shared memory of the log go to the real files: they are not on a disk, and nobody finds them after a power
cut (the first to open a database rebuilds the -shm file). Bytes and folder entries of the database, its -wal and its
-journal go to a `Disk`. As the unix VFS does, the first sync of a journal or log that was opened to be created syncs
its folder too, and a deletion syncs it only when SQLite asks. Temporary files are passed on: nobody needs them later.
"""

import os
from pathlib import Path
from typing import Any

import apsw

from tests.chaos.forgetful_disk import Disk, File

_TEMPORARY = (
    apsw.SQLITE_OPEN_DELETEONCLOSE
    | apsw.SQLITE_OPEN_TEMP_DB
    | apsw.SQLITE_OPEN_TRANSIENT_DB
    | apsw.SQLITE_OPEN_TEMP_JOURNAL
    | apsw.SQLITE_OPEN_SUBJOURNAL
)
_WITH_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class ForgetfulVFS(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, "unix")
        self.name = name
        self._disk = disk

    def xOpen(self, name: "str | apsw.URIFilename | None", flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or flags[0] & _TEMPORARY:
            return apsw.VFSFile("unix", name, flags)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Database(self._file(path, flags), self._disk, name, flags)
        file = self._file(path, flags)
        syncs_folder = bool(flags[0] & _WITH_FOLDER and flags[0] & apsw.SQLITE_OPEN_CREATE)
        flags[1] = flags[0]
        return _Log(file, self._disk, str(Path(path).parent) if syncs_folder else None)  # type: ignore[return-value]

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._load(filename)
        if not self._disk.delete(filename):
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE_NOENT)
        if syncdir:
            self._disk.sync_folder(str(Path(filename).parent))

    def xAccess(self, pathname: str, flags: int) -> bool:
        self._load(pathname)
        file = self._disk.find(pathname)
        # As the unix VFS has it: an empty file is none.
        return file is not None and (flags != apsw.SQLITE_ACCESS_EXISTS or len(file.seen) > 0)

    def _file(self, path: str, flags: list[int]) -> File:
        self._load(path)
        file = self._disk.find(path)
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
            file = self._disk.create(path)
        return file

    def _load(self, path: str) -> None:
        """What an earlier process left. Read before SQLite has a lock on it: closing a file drops a process's locks."""
        if not self._disk.knows(path) and Path(path).is_file():
            self._disk.put_durable(path, Path(path).read_bytes())


class _Bytes:
    """What SQLite reads and writes is on the disk, whichever file it is."""

    _file: File
    _disk: Disk

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._file.seen[offset : offset + amount])

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.write(self._file, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._disk.resize(self._file, newsize)

    def xFileSize(self) -> int:
        return len(self._file.seen)


class _Database(_Bytes, apsw.VFSFile):
    """The database: locks and shared memory of the real file, bytes of the disk."""

    def __init__(self, file: File, disk: Disk, name: "str | apsw.URIFilename | None", flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._file = file
        self._disk = disk

    def xSync(self, flags: int) -> None:
        self._disk.sync(self._file)


class _Log(_Bytes):
    """A log or journal: SQLite takes no locks on it, so it needs no real file."""

    def __init__(self, file: File, disk: Disk, folder: str | None) -> None:
        self._file = file
        self._disk = disk
        self._folder = folder

    def excepthook(self, *error: object) -> bool:
        return False

    def xClose(self) -> None:
        return

    def xSync(self, flags: int) -> None:
        self._disk.sync(self._file)
        if self._folder is not None:
            self._disk.sync_folder(self._folder)
            self._folder = None

    def xLock(self, level: int) -> None:
        return

    def xUnlock(self, level: int) -> None:
        return

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)


class FileMirror:
    """Keeps durable bytes in the real files, so that a SIGKILL is a power cut and the next process finds what is left.

    Descriptors stay open as long as the process: closing one would drop SQLite's locks on that file.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def write(self, path: str, offset: int, data: bytes) -> None:
        file = self._descriptor(path)
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written

    def resize(self, path: str, size: int) -> None:
        os.ftruncate(self._descriptor(path), size)

    def remove(self, path: str) -> None:
        # Only journals and logs are ever removed, and nobody has locks on those.
        if (file := self._open.pop(path, None)) is not None:
            os.close(file)
        Path(path).unlink(missing_ok=True)

    def _descriptor(self, path: str) -> int:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._open[path]
