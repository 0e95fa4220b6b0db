"""Which errors are the disk's, so that a message waits for it instead of being rejected."""

import errno
import sqlite3
from typing import Literal

DiskReason = Literal["disk_full", "disk_error"]

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


def disk_reason(error: BaseException) -> DiskReason | None:
    """The reason code when a disk refused, None when the error is another kind of fault."""
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "disk_error"
    if isinstance(error, sqlite3.Error):
        # An extended result code has the primary one in its low byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return "disk_full"
        if code in _DISK_CODES:
            return "disk_error"
    return None
