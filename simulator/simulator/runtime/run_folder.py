"""The short folder for Unix sockets: a path in one holds at most 107 bytes, a state folder may lie anywhere.

`<state>/run` is a symbolic link to it. A restart uses the same folder, because modules that are still alive know the
paths of their sockets.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from simulator.runtime.config import RuntimeFailed

LINK_NAME = "run"
_PREFIX = "edgeweir-"


def open_run_folder(state_dir: Path) -> Path:
    """The folder that the link points to, made again if it is gone; a new one otherwise. Mode 0700, ours."""
    link = state_dir / LINK_NAME
    if link.is_symlink():
        folder = link.readlink()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not folder.is_symlink() and folder.is_dir() and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
        link.unlink()  # somebody else took the name
    if link.exists():
        raise RuntimeFailed(f"{link} is in the way: it should be a symbolic link made by the runtime; remove it")
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    link.symlink_to(folder)
    return folder


def remove_run_folder(state_dir: Path) -> None:
    """Takes the sockets away; the link stays, so that a restart uses the same paths."""
    link = state_dir / LINK_NAME
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
