"""Every series' window on disk, some of them in memory.

Invariants
- Memory holds committed states only. What a message changes waits in `changed` until its transaction commits, so a
  rollback forgets it and nothing need be read again.
- A state belongs to a window layout; one of another layout counts as absent (the series warms up again).
- At most `limit` series are kept. Beyond it the one that has been unseen for the most messages is forgotten; should it
  speak again, it warms up. Order is counted in messages, never in wall-clock time.

Table scorer_series: one row a series; `state` is `SeriesState.encode`, `touched` the number of the message that changed
it last.
"""

import sqlite3
from collections import OrderedDict

from scorer.series import Layout, SeriesState

SCHEMA = """
CREATE TABLE IF NOT EXISTS scorer_series (
  device TEXT NOT NULL,
  module TEXT NOT NULL,
  series TEXT NOT NULL,
  layout BLOB NOT NULL,
  touched INTEGER NOT NULL,
  state BLOB NOT NULL,
  PRIMARY KEY (device, module, series)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scorer_series_touched ON scorer_series (touched);
"""

# Who sent the rows and which machine they are about: two gateways may each have a "pump-1".
SeriesKey = tuple[str, str, str]


class WindowStore:
    def __init__(self, db: sqlite3.Connection, *, limit: int, in_memory: int) -> None:
        self.limit = limit
        self.in_memory = in_memory
        self._db = db
        self._cache: OrderedDict[SeriesKey, tuple[bytes, SeriesState]] = OrderedDict()
        self._changed: dict[SeriesKey, tuple[bytes, SeriesState]] = {}
        self._evicted: list[SeriesKey] = []
        row = db.execute("SELECT count(*), coalesce(max(touched), 0) FROM scorer_series").fetchone()
        self.series_count: int = row[0]
        self._touched: int = row[1]
        self._new = 0

    def get(self, key: SeriesKey, layout: Layout) -> SeriesState:
        found = self._find(key)
        if found is None or found[0] != layout.digest:
            return SeriesState.empty(len(layout.hold))
        return found[1]

    def put(self, key: SeriesKey, layout: Layout, state: SeriesState) -> None:
        """Write the state in the open transaction."""
        known = self._find(key) is not None
        self._changed[key] = (layout.digest, state)
        self._db.execute(
            "INSERT OR REPLACE INTO scorer_series VALUES (?, ?, ?, ?, ?, ?)",
            (*key, layout.digest, self._touched + 1, state.encode()),
        )
        self._new += not known

    def evict_surplus(self) -> int:
        """Forget the longest unseen series beyond the limit, in the open transaction; how many."""
        surplus = self.series_count + self._new - self.limit
        if surplus <= 0:
            return 0
        query = "SELECT device, module, series FROM scorer_series ORDER BY touched, device, module, series LIMIT ?"
        self._evicted = [(row[0], row[1], row[2]) for row in self._db.execute(query, (surplus,))]
        self._db.executemany("DELETE FROM scorer_series WHERE device = ? AND module = ? AND series = ?", self._evicted)
        return len(self._evicted)

    def committed(self) -> None:
        """The open transaction is durable: what it changed is now what memory holds."""
        self.series_count += self._new - len(self._evicted)
        self._touched += 1
        for key, state in self._changed.items():
            self._cache[key] = state
            self._cache.move_to_end(key)
        for key in self._evicted:
            self._cache.pop(key, None)
        while len(self._cache) > self.in_memory:
            self._cache.popitem(last=False)
        self.forget_changes()

    def forget_changes(self) -> None:
        self._changed.clear()
        self._evicted = []
        self._new = 0

    def _find(self, key: SeriesKey) -> tuple[bytes, SeriesState] | None:
        if found := self._changed.get(key) or self._cache.get(key):
            return found
        query = "SELECT layout, state FROM scorer_series WHERE device = ? AND module = ? AND series = ?"
        row = self._db.execute(query, key).fetchone()
        return None if row is None else (bytes(row[0]), SeriesState.decode(bytes(row[1])))
