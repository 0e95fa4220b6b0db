"""Holes in what other modules of ours sent.

Each of their messages carries the sender's `epoch`, `output` and a number `n` without gaps. A jump in `n` is a loss
(edgeHub expired, dropped or lost messages): it is recorded with the numbers that are missing. A missing number that
comes later is counted as found. The first message of an output this store has never met sets the start; after that a
new epoch begins at 1.

Messages of an old epoch may come late, among those of the new one: each epoch has a count of its own. The KEEP_EPOCHS
used last are kept for each output, and KEEP_PER_SENDER for each sender, whatever it writes into its properties.
"""

import sqlite3
from collections.abc import Mapping

import msgspec

from contract.messages import EPOCH_PROPERTY, NUMBER_PROPERTY, OUTPUT_PROPERTY

KEEP_EPOCHS = 4
KEEP_PER_SENDER = 64
_KEEP_LOSSES = 1000
_NAME_LIMIT = 128

_Key = tuple[str, str, str, str]  # device, module, output, input

SCHEMA = """
DROP TABLE IF EXISTS peers;  -- its rows knew one epoch each
CREATE TABLE IF NOT EXISTS peer_epochs (
  device TEXT NOT NULL, module TEXT NOT NULL, output TEXT NOT NULL, input TEXT NOT NULL,
  epoch TEXT NOT NULL, n INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (device, module, output, input, epoch)
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
        # Only its order means anything, so a rollback may leave gaps.
        self._uses: int = db.execute("SELECT coalesce(max(used), 0) FROM peer_epochs").fetchone()[0]

    def record(
        self, input_name: str, device: str, module: str, properties: Mapping[str, str], now_micros: int
    ) -> Loss | None:
        """Note the number of a new message, in its transaction; the hole before it, if there is one."""
        epoch, number = properties.get(EPOCH_PROPERTY), properties.get(NUMBER_PROPERTY, "")
        if not module or not epoch or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        output = properties.get(OUTPUT_PROPERTY, "")
        if max(len(epoch), len(output)) > _NAME_LIMIT:
            return None
        n = int(number)
        key = (device, module, output, input_name)
        last = self._last(key, epoch, n)
        if n <= last:
            self._db.execute(
                "UPDATE losses SET found = found + 1 WHERE device = ? AND module = ? AND output = ? AND input = ?"
                " AND epoch = ? AND first <= ? AND last >= ?",
                (*key, epoch, n, n),
            )
            return None
        self._note(key, epoch, n)
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

    def _last(self, key: _Key, epoch: str, n: int) -> int:
        """The number before which nothing is missing that is not recorded."""
        known = dict(
            self._db.execute(
                "SELECT epoch, n FROM peer_epochs WHERE device = ? AND module = ? AND output = ? AND input = ?", key
            )
        )
        return int(known.get(epoch, 0 if known else n - 1))

    def _note(self, key: _Key, epoch: str, n: int) -> None:
        self._uses += 1
        updated = self._db.execute(
            "UPDATE peer_epochs SET n = ?, used = ?"
            " WHERE device = ? AND module = ? AND output = ? AND input = ? AND epoch = ?",
            (n, self._uses, *key, epoch),
        )
        if updated.rowcount:
            return
        self._db.execute(
            "INSERT INTO peer_epochs (device, module, output, input, epoch, n, used) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, epoch, n, self._uses),
        )
        self._forget_beyond(KEEP_EPOCHS, "device = ? AND module = ? AND output = ? AND input = ?", key)
        self._forget_beyond(KEEP_PER_SENDER, "device = ? AND module = ?", key[:2])

    def _forget_beyond(self, keep: int, where: str, values: tuple[str, ...]) -> None:
        self._db.execute(
            f"DELETE FROM peer_epochs WHERE {where} AND used <="
            f" (SELECT used FROM peer_epochs WHERE {where} ORDER BY used DESC LIMIT 1 OFFSET ?)",
            (*values, *values, keep),
        )

    def count(self) -> int:
        """How many epochs of outputs are remembered, of all senders."""
        return int(self._db.execute("SELECT count(*) FROM peer_epochs").fetchone()[0])

    def losses(self, limit: int = 10) -> list[Loss]:
        """The newest holes that still miss something."""
        rows = self._db.execute(
            "SELECT at, device, module, output, input, epoch, first, last, found FROM losses"
            " WHERE found < last - first + 1 ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Loss(*row) for row in rows]
