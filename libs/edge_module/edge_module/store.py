"""A module's one SQLite file: what it has seen, what it has to send, its peers, its settings and its own tables.

Promises
- A transaction commits whole or not at all; WAL with `synchronous=FULL`: what is committed survives a power cut.
- `epoch` and `id_key` are random and made with the file: another file is another sender.
- The parts keep their own promises: `edge_module.seen`, `edge_module.outbox`, `edge_module.peers`.

The store belongs to one thread at a time. In-memory figures are corrected by `rollback`.
"""

import secrets
import sqlite3
from pathlib import Path

from edge_module.clock import Clock
from edge_module.outbox import SCHEMA as OUTBOX_SCHEMA
from edge_module.outbox import Outbox, OutboxMessage, forget_acknowledgements
from edge_module.peers import SCHEMA as PEERS_SCHEMA
from edge_module.peers import Peers
from edge_module.seen import SCHEMA as SEEN_SCHEMA
from edge_module.seen import Seen

SCHEMA_VERSION = 1
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_ID_KEY_BYTES = 32
_WRITE_BACK_EVERY_SECS = 60.0
_LOG_LIMIT_BYTES = 16 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER, document BLOB NOT NULL);
"""


class StoreFromTheFuture(Exception):
    """The file was written by a newer version of this library."""


def read_boot_id(path: Path = BOOT_ID_FILE) -> str:
    """The kernel's id of this boot, "" where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Store:
    """Opens or makes the file. Raises sqlite3.Error or OSError when the disk refuses, StoreFromTheFuture."""

    def __init__(self, path: Path, *, clock: Clock, boot_id: str | None = None) -> None:
        self.path = path
        # A transaction has begun and was neither committed nor undone in memory. SQLite's own `in_transaction` does not
        # say that: a full or failing disk makes it roll back by itself, and the figures in memory stay as they were.
        self.is_uncommitted = False
        self._clock = clock
        self.db = _connect(path)
        try:
            self._prepare(read_boot_id() if boot_id is None else boot_id)
        except BaseException:
            self.db.close()
            raise
        self._changes_before = self.db.total_changes
        self._opened = clock.monotonic()
        self._running_before = float(self._meta("running_secs") or 0)
        self._written_back = self.running_secs()

    def _prepare(self, boot_id: str) -> None:
        for schema in (_SCHEMA, SEEN_SCHEMA, OUTBOX_SCHEMA, PEERS_SCHEMA):
            self.db.executescript(schema)
        self.db.execute("BEGIN IMMEDIATE")
        found = int(self._meta("schema_version") or SCHEMA_VERSION)
        if found > SCHEMA_VERSION:
            raise StoreFromTheFuture(f"{self.path} has schema version {found}; this version reads {SCHEMA_VERSION}")
        self._set_meta("schema_version", str(SCHEMA_VERSION).encode())
        self.epoch = (self._meta("epoch") or self._set_meta("epoch", secrets.token_hex(8).encode())).decode()
        self.id_key = self._meta("id_key") or self._set_meta("id_key", secrets.token_bytes(_ID_KEY_BYTES))
        if self._meta("boot_id") != boot_id.encode():
            forget_acknowledgements(self.db)
            self._set_meta("boot_id", boot_id.encode())
        self.db.execute("COMMIT")
        self.outbox = Outbox(self.db, epoch=self.epoch, id_key=self.id_key)
        self.seen = Seen(self.db)
        self.peers = Peers(self.db)

    def begin(self) -> None:
        if self.is_uncommitted:
            self.rollback()
        self.db.execute("BEGIN IMMEDIATE")
        self.is_uncommitted = True
        self.outbox.now_micros = self._clock.now_micros()
        self._changes_before = self.db.total_changes

    @property
    def has_written(self) -> bool:
        """Whether the transaction that began last has changed anything."""
        return self.db.total_changes > self._changes_before

    def commit(self) -> list[OutboxMessage]:
        """Make the transaction durable; what may be published now. When it raises, call `rollback`."""
        self.outbox.flush(self._clock.monotonic())
        self.db.execute("COMMIT")
        self.is_uncommitted = False
        self.seen.committed()
        return self.outbox.committed()

    def rollback(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.seen.rolled_back()
        self.outbox.rolled_back()
        self.is_uncommitted = False

    def running_secs(self) -> float:
        """How long this file has been open, over all processes."""
        return self._running_before + self._clock.monotonic() - self._opened

    def maintain(self) -> int:
        """Forget old identities, inside a transaction; returns how many sources were evicted."""
        running = self.running_secs()
        evicted = self.seen.maintain(running)
        if running - self._written_back >= _WRITE_BACK_EVERY_SECS:
            self.write_back()
        return evicted

    def write_back(self) -> None:
        """Persist lazily kept figures, inside a transaction."""
        self._written_back = self.running_secs()
        self.seen.write_back()
        self._set_meta("running_secs", repr(self._written_back).encode())

    def load_settings(self) -> tuple[int | None, bytes] | None:
        """The last good ones: `$version` and the desired document as JSON."""
        row = self.db.execute("SELECT version, document FROM settings").fetchone()
        return None if row is None else (row[0], row[1])

    def save_settings(self, version: int | None, document: bytes) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO settings (one, version, document) VALUES (1, ?, ?)", (version, document)
        )

    def close(self) -> None:
        self.db.close()

    def _meta(self, name: str) -> bytes | None:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def _set_meta(self, name: str, value: bytes) -> bytes:
        if self._meta(name) != value:
            self.db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))
        return value


def _connect(path: Path) -> sqlite3.Connection:
    # check_same_thread is off because the file is opened and closed by another thread than the worker that uses it.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=5.0)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # One large transaction must not leave a large log behind.
        db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}")
    except BaseException:
        db.close()
        raise
    return db
