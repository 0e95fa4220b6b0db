"""The durable outbox: outgoing bytes are fixed on disk before the first publish.

Invariants
- `seq` orders all messages of the store, `n` those of one output, both without gaps; `epoch` names this file, so a
  receiver that sees a hole in `n` knows that something is missing.
- `published` holds rows (upto, at): edgeHub has acknowledged every message up to `upto`, at the monotonic time `at` of
  this boot. Its newest row is never deleted, because `seq` continues from it.
- A message stays until KEEP_PUBLISHED_SECS after its acknowledgement. After a change of the kernel's boot id everything
  still kept is unacknowledged again: edgeHub does not sync what it acknowledges, so it may have lost it, and receivers
  drop repeats. What was deleted by then stays acknowledged: the mark never lies below the first row.
- Acknowledgement marks are written with the next transaction; losing one costs a repeat.
"""

import sqlite3
from collections.abc import Mapping

import msgspec

from contract.identity import keyed_id
from contract.messages import EPOCH_PROPERTY, NUMBER_PROPERTY, OUTPUT_PROPERTY

KEEP_PUBLISHED_SECS = 120.0
_PRUNE_ROWS = 2000

SCHEMA = """
CREATE TABLE IF NOT EXISTS outputs (output TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
  seq INTEGER PRIMARY KEY, output TEXT NOT NULL, n INTEGER NOT NULL, message_id TEXT NOT NULL, size INTEGER NOT NULL,
  created INTEGER NOT NULL, properties TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS published (upto INTEGER PRIMARY KEY, at REAL NOT NULL);
"""
_COLUMNS = "seq, output, n, message_id, created, properties, body"


class OutboxMessage(msgspec.Struct, frozen=True):
    """A message as it is published, every time with the same bytes. `created` is in microseconds of wall clock."""

    seq: int
    output: str
    n: int
    message_id: str
    created: int
    properties: dict[str, str]
    body: bytes


def forget_acknowledgements(db: sqlite3.Connection) -> None:
    """Leave one mark, right below the rows that are kept; without rows the newest one, which `seq` continues from."""
    floor = db.execute(
        "SELECT coalesce((SELECT min(seq) - 1 FROM outbox), (SELECT max(upto) FROM published), 0)"
    ).fetchone()[0]
    db.execute("DELETE FROM published")
    if floor:
        # The time of another boot means nothing in this one; there is nothing left to delete up to this mark.
        db.execute("INSERT INTO published (upto, at) VALUES (?, 0)", (floor,))


class Outbox:
    """`append`, `flush`, `committed`, `rolled_back` and the queries belong to the store's thread; `acknowledge` and the
    unsent figures may be used from another."""

    def __init__(self, db: sqlite3.Connection, *, epoch: str, id_key: bytes) -> None:
        self._db = db
        self._epoch = epoch
        self._id_key = id_key
        self._numbers: dict[str, int] = {}
        self._new: list[OutboxMessage] = []
        self.now_micros = 0  # set at the start of each transaction
        first_row, last_row, mark = db.execute(
            "SELECT (SELECT coalesce(min(seq), 1) FROM outbox), (SELECT coalesce(max(seq), 0) FROM outbox),"
            " (SELECT coalesce(max(upto), 0) FROM published)"
        ).fetchone()
        mark = max(mark, first_row - 1)  # only acknowledged rows are ever deleted
        self._committed_seq: int = max(last_row, mark)
        self._acked_upto: int = mark
        self._written_upto: int = mark
        self._flushed_upto: int = mark
        rows, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM outbox WHERE seq > ?", (mark,)).fetchone()
        # Each total is written by one thread only, so the difference needs no lock.
        self._rows_in: int = rows
        self._bytes_in: int = size
        self._rows_out = self._bytes_out = 0

    @property
    def unsent_rows(self) -> int:
        return self._rows_in - self._rows_out

    @property
    def unsent_bytes(self) -> int:
        return self._bytes_in - self._bytes_out

    @property
    def last_seq(self) -> int:
        """Of the last committed message."""
        return self._committed_seq

    @property
    def acked_upto(self) -> int:
        return self._acked_upto

    def append(self, output: str, body: bytes, properties: Mapping[str, str]) -> None:
        n = self._last_number(output) + 1
        self._numbers[output] = n
        self._new.append(
            OutboxMessage(
                seq=self._committed_seq + len(self._new) + 1,
                output=output,
                n=n,
                message_id=keyed_id(self._id_key, self._epoch.encode(), output.encode(), str(n).encode()),
                created=self.now_micros,
                properties={
                    **properties,
                    EPOCH_PROPERTY: self._epoch,
                    OUTPUT_PROPERTY: output,
                    NUMBER_PROPERTY: str(n),
                },
                body=body,
            )
        )

    def flush(self, monotonic: float) -> None:
        """Write what was appended, and the acknowledgements since the last transaction."""
        if self._new:
            self._db.executemany(
                "INSERT INTO outbox (seq, output, n, message_id, size, created, properties, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (m.seq, m.output, m.n, m.message_id, len(m.body), m.created,
                     msgspec.json.encode(m.properties).decode(), m.body)
                    for m in self._new
                ],
            )  # fmt: skip
            self._db.executemany(
                "INSERT INTO outputs (output, n) VALUES (?, ?) ON CONFLICT (output) DO UPDATE SET n = excluded.n",
                {m.output: (m.output, m.n) for m in self._new}.values(),
            )
        upto = self._acked_upto
        if upto > self._written_upto:
            self._db.execute("INSERT OR REPLACE INTO published (upto, at) VALUES (?, ?)", (upto, monotonic))
            self._flushed_upto = upto
        else:
            self._flushed_upto = self._written_upto

    def committed(self) -> list[OutboxMessage]:
        """What this transaction made durable, in order: now it may be published."""
        new, self._new = self._new, []
        self._written_upto = self._flushed_upto
        if new:
            self._committed_seq = new[-1].seq
            self._rows_in += len(new)
            self._bytes_in += sum(len(message.body) for message in new)
        return new

    def rolled_back(self) -> None:
        self._new.clear()
        self._numbers.clear()

    def acknowledge(self, messages: int, size: int, upto: int) -> None:
        """edgeHub has acknowledged this many more, now every message up to `upto`."""
        self._rows_out += messages
        self._bytes_out += size
        self._acked_upto = upto

    def unsent(self, after: int, *, rows: int, size: int) -> list[OutboxMessage]:
        """The next committed, unacknowledged messages in order: at most `rows`, about `size` bytes, at least one."""
        cursor = self._db.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
            (max(after, self._acked_upto), rows),
        )
        found: list[OutboxMessage] = []
        total = 0
        for row in cursor:
            message = _message(row)
            total += len(message.body)
            if found and total > size:
                break
            found.append(message)
        cursor.close()
        return found

    def all_kept(self) -> list[OutboxMessage]:
        """Every row still on disk, in order (for tests and inspection)."""
        return [_message(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM outbox ORDER BY seq")]

    def oldest_unsent_created(self) -> int | None:
        row = self._db.execute(
            "SELECT created FROM outbox WHERE seq > ? ORDER BY seq LIMIT 1", (self._acked_upto,)
        ).fetchone()
        return None if row is None else int(row[0])

    def prunable(self, acked_before: float) -> int | None:
        """The highest `upto` that was acknowledged before that monotonic time and whose messages are still there."""
        row = self._db.execute("SELECT max(upto) FROM published WHERE at <= ?", (acked_before,)).fetchone()
        if row[0] is None:
            return None
        first = self._db.execute("SELECT min(seq) FROM outbox").fetchone()[0]
        return int(row[0]) if first is not None and first <= row[0] else None

    def prune(self, upto: int) -> None:
        """Delete the oldest of them, a bounded number at a time."""
        first = self._db.execute("SELECT min(seq) FROM outbox").fetchone()[0]
        self._db.execute("DELETE FROM outbox WHERE seq <= ?", (min(upto, first + _PRUNE_ROWS - 1),))
        self._db.execute("DELETE FROM published WHERE upto < ? AND upto < (SELECT max(upto) FROM published)", (upto,))

    def _last_number(self, output: str) -> int:
        n = self._numbers.get(output)
        if n is None:
            row = self._db.execute("SELECT n FROM outputs WHERE output = ?", (output,)).fetchone()
            n = row[0] if row else 0
        return n


def _message(row: tuple[int, str, int, str, int, str, bytes]) -> OutboxMessage:
    seq, output, n, message_id, created, properties, body = row
    return OutboxMessage(
        seq, output, n, message_id, created, msgspec.json.decode(properties, type=dict[str, str]), body
    )
