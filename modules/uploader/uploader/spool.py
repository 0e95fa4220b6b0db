"""The spool: what was accepted and is not yet confirmed by every destination, in the module's SQLite file.

Promises
- A row is in exactly one place: a record (the body of a lane message, as it came) or a batch (the very bytes that go
  to storage). `commit_cut` moves it from the one to the other in one transaction, which also fixes the batch's name and
  number for every destination. So both are on disk before the first attempt, and no attempt ever changes them.
- A batch leaves when its last delivery is confirmed. Nothing else removes a row.
- `batch_no` counts from 1 without a gap within (spool id, lane, destination); each delivery knows the SHA-256 of the
  one before it.
- A batch holds rows of one group only: lane, hour folder, site, policy and model digest.
- Within a lane, when one row came before another and lies in the same hour folder or an earlier one (unknown is the
  last), then it has the lower batch number or the earlier place in the batch. So who reads by batch number finds a
  series that goes on from hour to hour in its order; rows that come late for an hour may stand before younger ones.
  A group that cannot be cut for a minute is not waited for any longer.

Tables (all within the caller's transaction; this class never commits)
  uploader_open        one line per group that has records: its size, and since when the oldest waits
  uploader_records     the records of open groups; `bytes` is what their rows will take in storage, uncompressed
  uploader_batches     what was cut; `uploader_bodies` keeps the compressed bytes apart, so that sums do not read them
  uploader_deliveries  one line per batch and destination that has not confirmed it
  uploader_sequences   per lane and destination: spool id, last number, last digest
  uploader_meta        `spool` (random, made with the file), `paused`

Deliveries to a destination that the settings no longer name stay, and so do records of a lane without a destination:
both wait for settings that name them again. A new destination gets what is cut after it was named.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from contract.batch import BlobMeta, BlobName, content_md5, format_blob_name, sha256_hex
from contract.lanes import Lane
from uploader.accept import Group, Portion

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uploader_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploader_open (
    open_id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL, folder TEXT NOT NULL, site TEXT NOT NULL, policy TEXT NOT NULL, model TEXT NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, opened INTEGER NOT NULL, flush INTEGER NOT NULL DEFAULT 0,
    UNIQUE (lane, folder, site, policy, model)
);
CREATE TABLE IF NOT EXISTS uploader_records (
    record_id INTEGER PRIMARY KEY AUTOINCREMENT,
    open_id INTEGER NOT NULL REFERENCES uploader_open,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, received INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS uploader_records_open ON uploader_records (open_id, record_id, rows, bytes, received);
CREATE TABLE IF NOT EXISTS uploader_batches (
    batch_id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL, folder TEXT NOT NULL, site TEXT NOT NULL, policy TEXT NOT NULL, model TEXT NOT NULL,
    format TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, md5 BLOB NOT NULL,
    opened INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS uploader_bodies (
    batch_id INTEGER PRIMARY KEY REFERENCES uploader_batches, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS uploader_deliveries (
    destination TEXT NOT NULL, urgency INTEGER NOT NULL, batch_id INTEGER NOT NULL REFERENCES uploader_batches,
    spool TEXT NOT NULL, batch_no INTEGER NOT NULL, name TEXT NOT NULL, previous_sha256 TEXT,
    PRIMARY KEY (destination, urgency, batch_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uploader_deliveries_batch ON uploader_deliveries (batch_id);
CREATE TABLE IF NOT EXISTS uploader_sequences (
    lane TEXT NOT NULL, destination TEXT NOT NULL,
    spool TEXT NOT NULL, batch_no INTEGER NOT NULL, sha256 TEXT,
    PRIMARY KEY (lane, destination)
) WITHOUT ROWID;
"""

MAX_OPEN_BATCHES: Final = 48
# Lower goes first.
_URGENCY: Final[dict[Lane, int]] = {"anomalies": 0, "insights": 1, "readings": 1, "rejected": 1}
_SPOOL_ID_BYTES = 8
_BEYOND_ALL: Final = 2**63 - 1


class Limits(NamedTuple):
    """When an open batch is cut; whichever is reached first."""

    max_rows: int
    max_bytes: int
    max_age_micros: int


class OpenBatch(NamedTuple):
    """Records of one group that are to become batches."""

    open_id: int
    group: Group


class Cut(NamedTuple):
    """The records of the next batch of a group, read but still in place."""

    open_id: int
    group: Group
    last_record: int
    rows: int
    size: int
    opened: int
    bodies: list[bytes]


class Delivery(NamedTuple):
    """One batch on its way to one destination."""

    batch_id: int
    destination: str
    lane: Lane
    name: str
    meta: BlobMeta
    md5: bytes
    body: bytes


class Backlog(NamedTuple):
    """What one lane still owes one destination ("" while it is not cut), and since when (microseconds)."""

    lane: Lane
    destination: str
    rows: int
    bytes: int
    batches: int
    oldest: int


class Spool:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.id = self._meta("spool") or self._set_meta("spool", _new_spool_id())

    # Accepting

    def add(self, portions: Iterable[Portion], limits: Limits, *, now: int) -> bool:
        """Keep these rows; whether a batch is due by rows or bytes. Only ages follow from `now` (microseconds)."""
        is_full = False
        for group, rows, body in portions:
            # As they will be stored: every row gets the envelope in front.
            size = len(body) + rows * len(group.prefix())
            open_id, all_rows, all_bytes = self._db.execute(
                "INSERT INTO uploader_open (lane, folder, site, policy, model, rows, bytes, opened)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET rows = rows + excluded.rows, bytes = bytes + excluded.bytes RETURNING open_id, rows, bytes",
                (*group, rows, size, now),
            ).fetchone()
            self._db.execute(
                "INSERT INTO uploader_records (open_id, rows, bytes, received, body) VALUES (?, ?, ?, ?, ?)",
                (open_id, rows, size, now, body),
            )
            is_full = is_full or all_rows >= limits.max_rows or all_bytes >= limits.max_bytes
        return is_full

    def used_bytes(self) -> int:
        """What the whole file holds, the open transaction included; free pages inside it do not count."""
        (pages,), (free,), (size,) = (
            self._db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    # Cutting

    def due(self, lanes: Iterable[Lane], limits: Limits, *, now: int, everything: bool = False) -> list[OpenBatch]:
        """The groups of these lanes that a batch is to be cut from now: by hour, then oldest first.

        With a group come those that must be cut before it (`read_cut`).
        """
        found = self._db.execute(
            "SELECT open_id, lane, folder, site, policy, model, rows, bytes, opened, flush FROM uploader_open"
            " ORDER BY opened, open_id"
        ).fetchall()
        lanes = set(lanes)
        found = [line for line in found if line[1] in lanes]
        surplus = len(found) - MAX_OPEN_BATCHES
        groups = [OpenBatch(line[0], Group(*line[1:6])) for line in found]
        latest: dict[str, str] = {}
        for place, (batch, line) in enumerate(zip(groups, found, strict=True)):
            if everything or place < surplus or line[9] or _is_due(line[6], line[7], now - line[8], limits):
                lane, folder = batch.group.lane, batch.group.folder
                latest[lane] = max(folder, latest.get(lane, folder))
        is_due = (batch for batch in groups if batch.group.folder <= latest.get(batch.group.lane, ""))
        return sorted(is_due, key=lambda batch: batch.group.folder)

    def read_cut(self, batch: OpenBatch, limits: Limits, *, passing: Iterable[int] = ()) -> Cut | None:
        """The next batch of a group: as many of its records as fit, at least one.

        None when it has none, or when an older record of the same hour or an earlier one has to be cut first. Groups
        whose ids are in `passing` are not waited for.
        """
        bound = self._oldest_beside(batch, set(passing))
        sizes = self._db.execute(
            "SELECT record_id, rows, bytes, received FROM uploader_records"
            " WHERE open_id = ? AND record_id < ? ORDER BY record_id LIMIT ?",
            (batch.open_id, bound, limits.max_rows),
        ).fetchall()
        if not sizes:
            return None
        last, rows, size = sizes[0][:3]
        for record_id, more_rows, more_bytes, _ in sizes[1:]:
            if rows + more_rows > limits.max_rows or size + more_bytes > limits.max_bytes:
                break
            last, rows, size = record_id, rows + more_rows, size + more_bytes
        bodies = self._db.execute(
            "SELECT body FROM uploader_records WHERE open_id = ? AND record_id <= ? ORDER BY record_id",
            (batch.open_id, last),
        )
        return Cut(batch.open_id, batch.group, last, rows, size, sizes[0][3], [body for (body,) in bodies])

    def _oldest_beside(self, batch: OpenBatch, passing: set[int]) -> int:
        """The oldest record of the lane's other groups of the same hour or an earlier one; beyond all without any."""
        beside = self._db.execute(
            "SELECT open_id, (SELECT MIN(record_id) FROM uploader_records WHERE open_id = uploader_open.open_id)"
            " FROM uploader_open WHERE lane = ? AND folder <= ? AND open_id <> ?",
            (batch.group.lane, batch.group.folder, batch.open_id),
        )
        return min((record_id for open_id, record_id in beside if open_id not in passing), default=_BEYOND_ALL)

    def commit_cut(self, cut: Cut, body: bytes, *, format: str, destinations: Iterable[str]) -> None:
        """Replace the records by the batch, numbered and named for each destination (at least one)."""
        # The records go first, so that the body can take their place in a file that has reached its limit.
        self._db.execute(
            "DELETE FROM uploader_records WHERE open_id = ? AND record_id <= ?", (cut.open_id, cut.last_record)
        )
        self._shrink_open(cut)
        digest = sha256_hex(body)
        batch_id = self._db.execute(
            "INSERT INTO uploader_batches (lane, folder, site, policy, model, format, rows, bytes, sha256, md5, opened)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*cut.group, format, cut.rows, len(body), digest, content_md5(body), cut.opened),
        ).lastrowid
        assert batch_id is not None
        self._db.execute("INSERT INTO uploader_bodies VALUES (?, ?)", (batch_id, body))
        for destination in destinations:
            self._append_to_sequence(batch_id, cut.group, format, digest, destination)

    def flush(self) -> int:
        """Have everything cut that is open now; how many groups that are."""
        return self._db.execute("UPDATE uploader_open SET flush = 1 WHERE flush = 0").rowcount

    def _shrink_open(self, cut: Cut) -> None:
        rest = self._db.execute(
            "SELECT received FROM uploader_records WHERE open_id = ? ORDER BY record_id LIMIT 1", (cut.open_id,)
        ).fetchone()
        if rest is None:
            self._db.execute("DELETE FROM uploader_open WHERE open_id = ?", (cut.open_id,))
        else:
            self._db.execute(
                "UPDATE uploader_open SET rows = rows - ?, bytes = bytes - ?, opened = ? WHERE open_id = ?",
                (cut.rows, cut.size, rest[0], cut.open_id),
            )

    def _append_to_sequence(self, batch_id: int, group: Group, format: str, digest: str, destination: str) -> None:
        spool, last_no, previous = self._db.execute(
            "SELECT spool, batch_no, sha256 FROM uploader_sequences WHERE lane = ? AND destination = ?",
            (group.lane, destination),
        ).fetchone() or (self.id, 0, None)
        number = last_no + 1
        name = format_blob_name(BlobName(group.lane, group.site, group.folder, spool, number, digest[:16], format))
        self._db.execute(
            "INSERT OR REPLACE INTO uploader_sequences VALUES (?, ?, ?, ?, ?)",
            (group.lane, destination, spool, number, digest),
        )
        self._db.execute(
            "INSERT OR REPLACE INTO uploader_deliveries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (destination, _URGENCY[group.lane], batch_id, spool, number, name, previous),
        )

    # Sending

    def next_delivery(self, destination: str) -> Delivery | None:
        """What goes to this destination next: anomalies before all else, each lane in the order of its numbers."""
        found = self._db.execute(
            "SELECT batch_id, lane, name, policy, model, spool, batch_no, rows, sha256, previous_sha256, md5, body"
            " FROM uploader_deliveries JOIN uploader_batches USING (batch_id) JOIN uploader_bodies USING (batch_id)"
            " WHERE destination = ? ORDER BY urgency, batch_id LIMIT 1",
            (destination,),
        ).fetchone()
        if found is None:
            return None
        batch_id, lane, name, policy, model, spool, number, rows, digest, previous, md5, body = found
        meta = BlobMeta(policy or None, model or None, spool, number, rows, digest, previous)
        return Delivery(batch_id, destination, lane, name, meta, md5, body)

    def confirm(self, batch_id: int, destination: str) -> None:
        """The destination has it. The batch leaves with its last delivery. Confirming again changes nothing."""
        self._db.execute(
            "DELETE FROM uploader_deliveries WHERE batch_id = ? AND destination = ?", (batch_id, destination)
        )
        if self._db.execute("SELECT 1 FROM uploader_deliveries WHERE batch_id = ?", (batch_id,)).fetchone() is None:
            self._db.execute("DELETE FROM uploader_bodies WHERE batch_id = ?", (batch_id,))
            self._db.execute("DELETE FROM uploader_batches WHERE batch_id = ?", (batch_id,))

    def start_new_sequence(self, lane: Lane, destination: str) -> str:
        """Number what this lane still owes the destination anew, under a new spool id; the id.

        For a name that is taken by something else. Only names that were never attempted may change, or a batch could
        be stored under both: deliveries of a lane go one at a time in order, so all behind the refused one qualify, and
        the refused one was found to be not ours.
        """
        spool = _new_spool_id()
        waiting = self._db.execute(
            "SELECT batch_id, lane, folder, site, policy, model, format, sha256"
            " FROM uploader_deliveries JOIN uploader_batches USING (batch_id)"
            " WHERE destination = ? AND lane = ? ORDER BY batch_id",
            (destination, lane),
        ).fetchall()
        self._db.execute(
            "INSERT OR REPLACE INTO uploader_sequences VALUES (?, ?, ?, 0, NULL)", (lane, destination, spool)
        )
        for batch_id, *group, format, digest in waiting:
            self._append_to_sequence(batch_id, Group(*group), format, digest, destination)
        return spool

    # What there is

    def backlog(self) -> list[Backlog]:
        """Uncut rows per lane (destination ""), then cut ones per lane and destination."""
        uncut = self._db.execute(
            "SELECT lane, '', SUM(rows), SUM(bytes), 0, MIN(opened) FROM uploader_open GROUP BY lane ORDER BY lane"
        ).fetchall()
        cut = self._db.execute(
            "SELECT lane, destination, SUM(rows), SUM(bytes), COUNT(*), MIN(opened)"
            " FROM uploader_deliveries JOIN uploader_batches USING (batch_id) GROUP BY lane, destination"
            " ORDER BY lane, destination"
        ).fetchall()
        return [Backlog(*line) for line in uncut + cut]

    @property
    def paused(self) -> bool:
        return self._meta("paused") == "yes"

    def set_paused(self, paused: bool) -> None:
        self._set_meta("paused", "yes" if paused else "no")

    def _meta(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM uploader_meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _set_meta(self, name: str, value: str) -> str:
        self._db.execute("INSERT OR REPLACE INTO uploader_meta VALUES (?, ?)", (name, value))
        return value


def _is_due(rows: int, size: int, age: int, limits: Limits) -> bool:
    # A negative age means that the clock was set back: cutting early is harmless, waiting for it to catch up is not.
    return rows >= limits.max_rows or size >= limits.max_bytes or not 0 <= age < limits.max_age_micros


def _new_spool_id() -> str:
    return secrets.token_hex(_SPOOL_ID_BYTES)


def unused_destinations(backlog: Iterable[Backlog], named: Mapping[str, object]) -> set[str]:
    """Destinations that something waits for although the settings do not name them."""
    return {line.destination for line in backlog if line.destination and line.destination not in named}
