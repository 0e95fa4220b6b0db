"""An apsw connection with the manners of `sqlite3.Connection`, as far as the product uses it.

With `isolation_level=None` only: no transaction begins by itself. A statement is run to its end at once and its rows
are kept, so none is left open at a commit.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apsw

_INTERNAL = {apsw.SQLITE_INTERNAL, apsw.SQLITE_NOTFOUND}
_DATABASE = {apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB}
_INTEGRITY = {apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH}
_INTERFACE = {apsw.SQLITE_MISUSE, apsw.SQLITE_RANGE}
_SYNCHRONOUS = re.compile(r"\s*PRAGMA\s+synchronous\s*=", re.IGNORECASE)
_CHANGING = ("INSERT", "UPDATE", "DELETE", "REPLACE")

Parameters = Sequence[Any] | Mapping[str, Any]


class Cursor:
    def __init__(self, rows: Iterable[Any] = (), *, rowcount: int = -1, lastrowid: int | None = None) -> None:
        self._rows = iter(list(rows))
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchmany(self, size: int = 1) -> list[Any]:
        return [row for row, _ in zip(self._rows, range(size), strict=False)]

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        self._rows = iter(())


class Connection:
    """Raises what sqlite3 would, with `sqlite_errorcode` set. `synchronous` wins over what is asked for later."""

    def __init__(self, path: str, *, vfs: str, timeout: float, synchronous: str | None = None) -> None:
        self._synchronous = synchronous
        try:
            self._db = apsw.Connection(path, vfs=vfs)
            self._db.set_busy_timeout(round(timeout * 1000))
        except apsw.Error as error:
            raise translated(error) from error

    def execute(self, sql: str, parameters: Parameters = ()) -> Cursor:
        if self._synchronous is not None and _SYNCHRONOUS.match(sql):
            sql = f"PRAGMA synchronous = {self._synchronous}"
        try:
            rows = self._db.execute(sql, parameters or None).fetchall()
        except apsw.Error as error:
            raise translated(error) from error
        if not sql.lstrip().upper().startswith(_CHANGING):
            return Cursor(rows)
        return Cursor(rows, rowcount=self._db.changes(), lastrowid=self._db.last_insert_rowid())

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> Cursor:
        before = self._db.total_changes()
        try:
            self._db.executemany(sql, rows).fetchall()
        except apsw.Error as error:
            raise translated(error) from error
        return Cursor(rowcount=self._db.total_changes() - before)

    def executescript(self, script: str) -> Cursor:
        if self.in_transaction:
            self.execute("COMMIT")
        try:
            self._db.execute(script).fetchall()
        except apsw.Error as error:
            raise translated(error) from error
        return Cursor()

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        return bool(self._db.in_transaction)

    @property
    def total_changes(self) -> int:
        return self._db.total_changes()

    def close(self) -> None:
        self._db.close()


def translated(error: apsw.Error) -> Exception:
    code = getattr(error, "extendedresult", 0) or getattr(error, "result", 0)
    if not code:  # a wrong use of apsw itself: closed, bound wrongly, two threads at once
        return sqlite3.ProgrammingError(str(error))
    primary = code & 0xFF
    if primary == apsw.SQLITE_NOMEM:
        return MemoryError(str(error))
    found = _class_of(primary)(str(error))
    found.sqlite_errorcode = code
    found.sqlite_errorname = str(apsw.mapping_result_codes.get(primary, "SQLITE_UNKNOWN"))
    return found


def _class_of(primary: int) -> type[sqlite3.Error]:
    if primary in _INTERNAL:
        return sqlite3.InternalError
    if primary in _DATABASE:
        return sqlite3.DatabaseError
    if primary in _INTEGRITY:
        return sqlite3.IntegrityError
    if primary in _INTERFACE:
        return sqlite3.InterfaceError
    return sqlite3.DataError if primary == apsw.SQLITE_TOOBIG else sqlite3.OperationalError
