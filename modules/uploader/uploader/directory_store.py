"""A folder as a destination: a file appears under its name whole and durable, or not at all.

Steps: write `.{name}.part` beside the target, fsync, link it to its name (which fails when the name is taken), remove
the part, fsync the folder and those above it. A kill between any two of them leaves the target absent or complete.
Readers skip names that begin with a dot.
"""

import errno
import hashlib
import os
from pathlib import Path

from uploader.store import AlreadyThere, Blob, Found, NotFound, NotNow

# File systems that have no hard links (FAT, some network mounts) say so with one of these.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DirectoryStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, blob: Blob) -> None:
        target = self._root / blob.name
        try:
            if target.exists():
                # A kill between link and removal leaves the part as a second name of the finished file.
                self._part(target).unlink(missing_ok=True)
                self._sync_folders(target.parent)
                raise AlreadyThere(blob.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(target, blob.body)
        except OSError as error:
            raise _not_now(error) from error

    def find(self, name: str) -> Found:
        """Reads the whole file: nothing else says what is in it. What is found is durable, name and all."""
        target = self._root / name
        try:
            with target.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
                found = Found(size=os.fstat(file.fileno()).st_size, md5=digest)
            # It may have got its name right before a kill or a failure, and the batch is confirmed on these grounds.
            self._sync_folders(target.parent)
            return found
        except FileNotFoundError:
            raise NotFound(name) from None
        except OSError as error:
            raise _not_now(error) from error

    def create_container(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)

    def credential_has_changed(self) -> bool:
        return False

    def _write(self, target: Path, body: bytes) -> None:
        part = self._part(target)
        # Never open an old part for writing: it may be a second name of a finished file.
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        _give_name(part, target)
        self._sync_folders(target.parent)

    @staticmethod
    def _part(target: Path) -> Path:
        return target.with_name(f".{target.name}.part")

    def _sync_folders(self, folder: Path) -> None:
        """Up to the one above the root: a kill may have left any of them made and not yet synced."""
        _sync_folder(folder)
        while folder != self._root.parent and folder != folder.parent:
            folder = folder.parent
            _sync_folder(folder)


def _give_name(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except FileExistsError:
        part.unlink()
        raise AlreadyThere(str(target)) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No second process writes here, so nothing can come between the look (in put) and this.
        part.rename(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network mounts cannot sync a folder; they order their own metadata. A disk that fails is another thing.
        if error.errno in (errno.EIO, *_FULL):
            raise
    finally:
        os.close(handle)


def _not_now(error: OSError) -> NotNow:
    reason = "folder_full" if error.errno in _FULL else "folder_error"
    return NotNow(reason, f"{error.strerror or error}: {error.filename or ''}")
