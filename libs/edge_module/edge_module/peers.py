"""Holes in what other modules of ours sent.

Each of their messages carries the sender's `epoch`, `output` and a number `n` without gaps. A jump in `n` is a loss
(edgeHub expired, dropped or lost messages): it is recorded with the numbers that are missing. A missing number that
comes later is counted as found. The first message of a sender this store has never met sets the start; after that a
new epoch begins at 1.
"""

import sqlite3
from collections.abc import Mapping

import msgspec

from contract.messages import EPOCH_PROPERTY, NUMBER_PROPERTY, OUTPUT_PROPERTY

_KEEP_LOSSES = 1000

SCHEMA = """
CREATE TABLE IF NOT EXISTS peers (
  device TEXT NOT NULL, module TEXT NOT NULL, output TEXT NOT NULL, input TEXT NOT NULL,
  epoch TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (device, module, output, input)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS losses (
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, device TEXT NOT NULL, module TEXT NOT NULL, output TEXT NOT NULL,
  input TEXT NOT NULL, epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  found INTEGER NOT NULL DEFAULT 0
);
"""


class Loss(msgspec.Struct, frozen=True):
    """Messages `first` to `last` of one sender's output that did not come; `found` of them came later."""

    at: int  # microseconds of wall clock
    device: str
    module: str
    output: str
    input: str
    epoch: str
    first: int
    last: int
    found: int = 0

    @property
    def missing(self) -> int:
        return self.last - self.first + 1 - self.found


class Peers:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def record(
        self, input_name: str, device: str, module: str, properties: Mapping[str, str], now_micros: int
    ) -> Loss | None:
        """Note the number of a new message, in its transaction; the hole before it, if there is one."""
        epoch, number = properties.get(EPOCH_PROPERTY), properties.get(NUMBER_PROPERTY, "")
        if not module or not epoch or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        n = int(number)
        output = properties.get(OUTPUT_PROPERTY, "")
        key = (device, module, output, input_name)
        row = self._db.execute(
            "SELECT epoch, n FROM peers WHERE device = ? AND module = ? AND output = ? AND input = ?", key
        ).fetchone()
        last = n - 1 if row is None else row[1] if row[0] == epoch else 0
        if n <= last:
            self._db.execute(
                "UPDATE losses SET found = found + 1 WHERE device = ? AND module = ? AND output = ? AND input = ?"
                " AND epoch = ? AND first <= ? AND last >= ?",
                (*key, epoch, n, n),
            )
            return None
        self._db.execute(
            "INSERT INTO peers (device, module, output, input, epoch, n) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, n = excluded.n",
            (*key, epoch, n),
        )
        if n == last + 1:
            return None
        loss = Loss(now_micros, *key, epoch, last + 1, n - 1)
        cursor = self._db.execute(
            "INSERT INTO losses (at, device, module, output, input, epoch, first, last)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(loss)[:-1],
        )
        self._db.execute("DELETE FROM losses WHERE id <= ?", ((cursor.lastrowid or 0) - _KEEP_LOSSES,))
        return loss

    def losses(self, limit: int = 10) -> list[Loss]:
        """The newest holes that still miss something."""
        rows = self._db.execute(
            "SELECT at, device, module, output, input, epoch, first, last, found FROM losses"
            " WHERE found < last - first + 1 ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Loss(*row) for row in rows]
