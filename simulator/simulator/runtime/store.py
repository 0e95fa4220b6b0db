"""The runtime's one durable file: SQLite in WAL mode, with group commit.

Promises:
- What is written before `after_commit(done)` is on disk, as far as the operating system is concerned, when `done(True)`
  runs; `done` calls run in the order in which they were asked for. A kill -9 of the process loses none of it.
- `synchronous=NORMAL`: the log is not synced at each commit, so a power cut can lose the last commits. That is what
  edgeHub does too (RocksDB with default write options), and what its acknowledgement is worth. `sync` waits for the
  disk: it is for what IoT Hub keeps for the edge (identities, desired properties), which no power cut here undoes.
- Every write of one turn of the event loop shares one commit: with many publishers at once the cost of a commit is
  divided by their number, with one publisher it waits for nobody.
- When a write or a commit fails, the whole open transaction is undone, every `done` of it gets False, and the
  `on_rollback` hooks run, so that what is cached in memory can be read again.

One connection, used from the event loop's thread alone. Checkpoints run in a thread of their own, because they are
the only step that waits for the disk.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from simulator.runtime.kill_points import Reach, pass_by

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identities (
  device TEXT NOT NULL, module TEXT NOT NULL, primary_key TEXT NOT NULL, secondary_key TEXT NOT NULL,
  generation TEXT NOT NULL, enabled INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (device, module)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscriptions (
  client TEXT NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL, PRIMARY KEY (client, filter)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twins (
  client TEXT PRIMARY KEY, desired TEXT NOT NULL, desired_version INTEGER NOT NULL,
  reported TEXT NOT NULL, reported_version INTEGER NOT NULL, tags TEXT NOT NULL, synced TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
  id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS queued (
  endpoint TEXT NOT NULL, priority INTEGER NOT NULL, message INTEGER NOT NULL, expires REAL,
  PRIMARY KEY (endpoint, priority, message)
) WITHOUT ROWID;
"""
_CHECKPOINT_INTERVAL_SECS = 1.0
# A safety net behind the thread: 32,768 pages of 4 KiB are 128 MiB of log.
_AUTOCHECKPOINT_PAGES = 32_768

Done = Callable[[bool], None]
Parameters = tuple[Any, ...]  # whatever sqlite3 binds


class StoreFailed(Exception):
    """The disk refused a write; nothing of the open transaction is kept."""


class Store:
    def __init__(self, file: Path, reach: Reach = pass_by) -> None:
        self._file = file
        self._reach = reach
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, cached_statements=256)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._migrate()
        self._waiting: list[Done] = []
        self._is_open = False
        self._hooks: list[Callable[[], None]] = []
        self.commits = 0
        self._synced = 0

    def _migrate(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, SCHEMA_VERSION):
            raise StoreFailed(f"{self._file} was written by another version (format {found}, not {SCHEMA_VERSION})")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def on_rollback(self, hook: Callable[[], None]) -> None:
        self._hooks.append(hook)

    def read(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Rows, the open transaction's own writes included."""
        return self._db.execute(sql, parameters).fetchall()

    def write(self, sql: str, parameters: Parameters = ()) -> int:
        """Runs one statement in the open transaction; returns how many rows it touched. Raises StoreFailed."""
        try:
            self._open()
            return self._db.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            self._undo()
            raise StoreFailed(str(error)) from error

    def write_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        try:
            self._open()
            self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            self._undo()
            raise StoreFailed(str(error)) from error

    def after_commit(self, done: Done) -> None:
        """Calls `done` once everything written so far is durable: at once when it already is."""
        if self._is_open:
            self._waiting.append(done)
        else:
            done(True)

    def _open(self) -> None:
        if self._is_open:
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._is_open = True
        # After every callback that is ready now: their writes join this transaction.
        with contextlib.suppress(RuntimeError):  # no loop yet: the caller flushes
            asyncio.get_running_loop().call_soon(self._flush_quietly)

    def flush(self) -> None:
        """Commits what is open. Raises StoreFailed."""
        if not self._is_open:
            return
        self._reach("before_commit")
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise StoreFailed(str(error)) from error
        self._reach("after_commit")
        self._is_open = False
        self.commits += 1
        self._tell(True)

    def sync(self) -> None:
        """Commits what is open, then waits until all that was committed is on the disk itself. Raises StoreFailed."""
        self.flush()
        if self._synced == self.commits:
            return
        commits = self.commits
        try:
            # The log is synced whole, so a commit that waits for the disk makes the earlier ones durable too.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('synced', hex(randomblob(8)))")
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")
        self._synced = commits

    def _flush_quietly(self) -> None:
        with contextlib.suppress(StoreFailed):  # every waiting `done` was told
            self.flush()

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        self._is_open = False
        for hook in self._hooks:
            hook()
        self._tell(False)

    def _tell(self, is_durable: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(is_durable)

    async def keep_log_short(self) -> None:
        """Checkpoints now and then, in a thread with a connection of its own, until cancelled."""
        while True:
            await asyncio.sleep(_CHECKPOINT_INTERVAL_SECS)
            await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        with contextlib.closing(sqlite3.connect(self._file)) as db, contextlib.suppress(sqlite3.Error):
            self._reach("before_checkpoint")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._reach("after_checkpoint")

    def close(self) -> None:
        with contextlib.suppress(StoreFailed):
            self.flush()
        self._db.close()

    # --- single named values -----------------------------------------------------------------------------------------

    def get_meta(self, name: str) -> str | None:
        rows = self.read("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, name: str, value: str) -> None:
        self.write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
