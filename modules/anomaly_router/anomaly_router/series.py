"""What is remembered of each series, on disk and, for the busiest, in memory.

Promises
- A state is written in the transaction of the message that changed it; only the states that it touched are written.
- `forget` drops everything in memory, so the next look finds what was committed.
- At most `max_series` are kept, give or take what one tick of a second adds; memory holds at most 1,024 states.

On disk: router_series (key, state, touched, open). `key` is a digest of (device, module, series), `state` is msgpack,
`touched` counts upwards with each write, `open` says whether a window or an episode is open.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from anomaly_router.episodes import Episode
from anomaly_router.insights import Timeline
from contract.messages import Model

SCHEMA = """
CREATE TABLE IF NOT EXISTS router_series (
    key BLOB PRIMARY KEY, state BLOB NOT NULL, touched INTEGER NOT NULL, open INTEGER NOT NULL
);
"""
IN_MEMORY = 1_024


class SeriesState(msgspec.Struct):
    device: str
    module: str
    series: str
    model: Model | None = None
    episode: Episode | None = None
    timeline: Timeline = msgspec.field(default_factory=Timeline)


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(SeriesState).decode


def _is_open(state: SeriesState) -> bool:
    return state.episode is not None or bool(state.timeline.windows)


def series_key(device: str, module: str, series: str) -> bytes:
    """16 bytes, different for different triples: the lengths keep ("a", "bc") apart from ("ab", "c")."""
    hasher = blake2b(digest_size=16)
    for part in (device, module, series):
        encoded = part.encode()
        hasher.update(len(encoded).to_bytes(4, "big"))
        hasher.update(encoded)
    return hasher.digest()


class SeriesStore:
    """`active` maps each series that has a window or episode open to when a row of it last came (monotonic seconds)."""

    def __init__(self, db: sqlite3.Connection, now: float) -> None:
        self._db = db
        self._states: OrderedDict[bytes, SeriesState] = OrderedDict()
        self._dirty: dict[bytes, SeriesState] = {}
        # Those that a row came for since the last write, the latest last: after a restart `active` has this order.
        self._came: OrderedDict[bytes, None] = OrderedDict()
        self.active: OrderedDict[bytes, float] = OrderedDict()
        self.count = 0
        self._touched = 0
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop what is not committed. A series whose last row's running time is unknown is taken as touched now."""
        self._states.clear()
        self._dirty.clear()
        self._came.clear()
        known = self.active
        keys = self._db.execute("SELECT key FROM router_series WHERE open ORDER BY touched")
        self.active = OrderedDict((key, known.get(key, now)) for (key,) in keys)
        self.count, self._touched = self._db.execute(
            "SELECT count(*), coalesce(max(touched), 0) FROM router_series"
        ).fetchone()

    def touch(self, device: str, module: str, series: str, now: float) -> SeriesState:
        """The state to change for a row that came now; a new one for a new series."""
        key = series_key(device, module, series)
        state = self._dirty.get(key)
        if state is None:
            state = self.load(key)
            if state is None:
                state = SeriesState(device, module, series)
                self.count += 1
            self._dirty[key] = state
        for order in (self._came, self.active):
            order.pop(key, None)
        self._came[key] = None
        self.active[key] = now
        return state

    def load(self, key: bytes) -> SeriesState | None:
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
            return state
        row = self._db.execute("SELECT state FROM router_series WHERE key = ?", (key,)).fetchone()
        return None if row is None else _DECODE(row[0])

    def change(self, key: bytes) -> SeriesState:
        """The state of a known series, to change without a row of it having come. Raises KeyError."""
        state = self._dirty.get(key) or self.load(key)
        if state is None:
            raise KeyError(key.hex())
        self._dirty[key] = state
        return state

    def write(self) -> None:
        """Write what was changed since the last write, inside the caller's transaction."""
        for key, state in self._dirty.items():
            if not _is_open(state):
                self.active.pop(key, None)
            self._states[key] = state
            self._states.move_to_end(key)
        came = [(key, self._dirty[key]) for key in self._came]
        self._db.executemany(
            "INSERT OR REPLACE INTO router_series (key, state, touched, open) VALUES (?, ?, ?, ?)",
            [
                (key, _ENCODE(state), touched, _is_open(state))
                for touched, (key, state) in enumerate(came, start=self._touched + 1)
            ],
        )
        self._touched += len(came)
        # What only closed stays as long silent as it was.
        self._db.executemany(
            "UPDATE router_series SET state = ?, open = ? WHERE key = ?",
            [(_ENCODE(state), _is_open(state), key) for key, state in self._dirty.items() if key not in self._came],
        )
        self._came.clear()
        self._dirty.clear()
        while len(self._states) > IN_MEMORY:
            self._states.popitem(last=False)

    def longest_silent(self, limit: int) -> Iterator[bytes]:
        for (key,) in self._db.execute("SELECT key FROM router_series ORDER BY touched LIMIT ?", (limit,)).fetchall():
            yield key

    def remove(self, key: bytes) -> None:
        self._db.execute("DELETE FROM router_series WHERE key = ?", (key,))
        self._dirty.pop(key, None)
        self._came.pop(key, None)
        self._states.pop(key, None)
        self.active.pop(key, None)
        self.count -= 1
