"""Which inputs have had their effect: the identities kept per source and input.

Invariants
- An identity is recorded in the transaction that holds its effect, so a recorded one has happened exactly once.
- Kept are the last KEEP_MESSAGES of a source, or ten times its busiest minute, whichever is more; counted in messages
  and in running time, never by the wall clock, which jumps.
- The same message id with another body is another message (firmware that counts from 1 again after a reboot).
"""

import sqlite3
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from contract.identity import InputIdentity

KEEP_MESSAGES = 4096
KEEP_MINUTES = 10
EVICT_AFTER_SECS = 30 * 86_400.0
_CACHED_SOURCES = 10_000
_PRUNE_EVERY = 64

SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
  id INTEGER PRIMARY KEY, device TEXT NOT NULL, module TEXT NOT NULL, input TEXT NOT NULL,
  keep INTEGER NOT NULL, last_secs REAL NOT NULL, UNIQUE (device, module, input)
);
CREATE TABLE IF NOT EXISTS seen (
  source INTEGER NOT NULL, id BLOB NOT NULL, digest BLOB NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (source, id, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_by_age ON seen (source, n);
"""

Verdict = Literal["new", "reused", "repeat"]
_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Source:
    id: int
    n: int  # of the last identity recorded
    pruned: int  # identities up to this n are gone
    keep: int
    last_secs: float
    minute: int = -1
    in_minute: int = 0
    dirty: bool = False


class Seen:
    """`running_secs` is the time this store has been open, over all processes."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sources: dict[_Key, _Source] = {}
        self._undo: list[tuple[_Key, _Source, bool]] = []
        self._checked_for_eviction = 0.0

    def check(self, input_name: str, identity: InputIdentity) -> Verdict:
        """`reused`: new, but its message id came before with another body."""
        source = self._source((identity.device, identity.module, input_name))
        if source is None:
            return "new"
        message = _message_key(identity)
        query = "SELECT 1 FROM seen WHERE source = ? AND id = ? AND digest = ?"
        if self._db.execute(query, (source.id, message, identity.digest)).fetchone():
            return "repeat"
        if (
            message
            and self._db.execute(
                "SELECT 1 FROM seen WHERE source = ? AND id = ? LIMIT 1", (source.id, message)
            ).fetchone()
        ):
            return "reused"
        return "new"

    def record(self, input_name: str, identity: InputIdentity, running_secs: float) -> None:
        key = (identity.device, identity.module, input_name)
        source = self._source(key)
        created = source is None
        if source is None:
            cursor = self._db.execute(
                "INSERT INTO sources (device, module, input, keep, last_secs) VALUES (?, ?, ?, ?, ?)",
                (*key, KEEP_MESSAGES, running_secs),
            )
            source = _Source(id=cursor.lastrowid or 0, n=0, pruned=0, keep=KEEP_MESSAGES, last_secs=running_secs)
            self._remember(key, source)
        self._undo.append((key, source, created))
        source.n += 1
        self._db.execute(
            "INSERT INTO seen (source, id, digest, n) VALUES (?, ?, ?, ?)",
            (source.id, _message_key(identity), identity.digest, source.n),
        )
        _note_rate(source, running_secs)

    def committed(self) -> None:
        self._undo.clear()

    def rolled_back(self) -> None:
        for key, source, created in self._undo:
            source.n -= 1
            if created:
                self._sources.pop(key, None)
        self._undo.clear()

    def maintain(self, running_secs: float) -> int:
        """Delete identities beyond what is kept; returns how many whole sources were evicted."""
        for source in self._sources.values():
            horizon = source.n - source.keep
            if horizon - source.pruned >= _PRUNE_EVERY:
                self._db.execute("DELETE FROM seen WHERE source = ? AND n <= ?", (source.id, horizon))
                source.pruned = horizon
        if running_secs - self._checked_for_eviction < 3600.0:
            return 0
        self._checked_for_eviction = running_secs
        return self._evict(running_secs)

    def write_back(self) -> None:
        """Persist what is only in memory: each source's last time and its rate."""
        for source in self._sources.values():
            if source.dirty:
                self._db.execute(
                    "UPDATE sources SET keep = ?, last_secs = ? WHERE id = ?",
                    (source.keep, source.last_secs, source.id),
                )
                source.dirty = False

    def _evict(self, running_secs: float) -> int:
        self.write_back()
        old = self._db.execute(
            "SELECT id, device, module, input FROM sources WHERE last_secs < ?", (running_secs - EVICT_AFTER_SECS,)
        ).fetchall()
        for source, *key in old:
            self._db.execute("DELETE FROM seen WHERE source = ?", (source,))
            self._db.execute("DELETE FROM sources WHERE id = ?", (source,))
            self._sources.pop(tuple(key), None)
        return len(old)

    def _source(self, key: _Key) -> _Source | None:
        source = self._sources.get(key)
        if source is not None:
            return source
        row = self._db.execute(
            "SELECT id, keep, last_secs FROM sources WHERE device = ? AND module = ? AND input = ?", key
        ).fetchone()
        if row is None:
            return None
        first, last = self._db.execute("SELECT min(n), max(n) FROM seen WHERE source = ?", (row[0],)).fetchone()
        source = _Source(id=row[0], n=last or 0, pruned=(first or 1) - 1, keep=row[1], last_secs=row[2])
        self._remember(key, source)
        return source

    def _remember(self, key: _Key, source: _Source) -> None:
        if len(self._sources) >= _CACHED_SOURCES:
            self._sources = {kept: value for kept, value in self._sources.items() if value.dirty}
        self._sources[key] = source


def _note_rate(source: _Source, running_secs: float) -> None:
    minute = int(running_secs // 60)
    if minute != source.minute:
        source.minute, source.in_minute = minute, 0
    source.in_minute += 1
    source.keep = max(source.keep, KEEP_MINUTES * source.in_minute)
    source.last_secs = running_secs
    source.dirty = True


def _message_key(identity: InputIdentity) -> bytes:
    if identity.message_id is None:
        return b""
    return blake2b(identity.message_id.encode(), digest_size=16).digest()
