"""Runs in which nothing went wrong, made up with their storage, for tests to spoil.

Three devices. `sure` and `gateway` (two machines) send until they are acknowledged, and cross an hour; `hasty` gives
up, sends poison, and what it gave up may arrive late or never. Some acknowledgements are demoted, some messages
repeated.
Storage is what an undisturbed pipeline would hold: batches cut at any time, each hour after the earlier ones.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec
from msgspec import to_builtins

from contract.batch import (
    BlobMeta,
    BlobName,
    compress,
    format_blob_name,
    hour_folder,
    metadata_of,
    row_prefix,
    sha256_hex,
    stored_lines,
)
from contract.bundle import Feature
from contract.lanes import Lane
from contract.messages import Source, reject
from contract.timestamps import format_timestamp, parse_timestamp
from simulator.delivery import Message
from simulator.judgement import judge_run
from simulator.ledger import Ledger
from simulator.oracle import ExpectedRow, RowId, Verdict
from simulator.reference import Reference
from simulator.stored import Number, Storage, loads
from tests.simulator.models import spread_bundle

HOUR: Final = 1_700_002_800
SITE: Final = "hall 7"
POLICY_HASH: Final = "sha256:" + "a" * 64
POLICY: Final = """
envelope:
  device: {transform: keep, lanes: [readings, anomalies]}
  series: {transform: keep, lanes: [readings, anomalies]}
  t: {transform: keep, lanes: [readings, anomalies]}
  message: {transform: keep, lanes: [readings, anomalies]}
  i: {transform: keep, lanes: [readings, anomalies]}
fields:
  - {path: /value, class: operational, transform: keep, lanes: [readings, anomalies]}
  - {path: /fine, class: operational, transform: round, decimals: 1, lanes: [readings]}
"""
BUNDLE: Final = spread_bundle(features=(Feature("value", "/value"), Feature("fine", "/fine")), says_why=True)
RECEIVED: Final = format_timestamp((HOUR - 100) * 1_000_000)
_END_OF_TIME: Final = 2**62
_QUIET_ROWS: Final = 2
_WINDOW_SECS: Final = 4


@dataclass
class Piece:
    """One batch in the making; its number is its place among those of its lane and spool."""

    lane: Lane
    spool: str
    folder: str
    rows: list[dict[str, Any]]
    policy: str = POLICY_HASH
    model: str = BUNDLE.digest
    site: str = SITE


@dataclass
class TrueRun:
    ledger: Ledger
    arrived: list[tuple[str, Message]]
    pieces: list[Piece] = field(default_factory=list)

    def of(self, lane: Lane) -> list[Piece]:
        return [piece for piece in self.pieces if piece.lane == lane]

    def places(self, lane: Lane) -> list[tuple[Piece, int]]:
        return [(piece, place) for piece in self.of(lane) for place in range(len(piece.rows))]

    def judge(self, **more: Any) -> Verdict:
        more = {"policy_hash": POLICY_HASH, "insights": True, **more}
        return judge_run(self.ledger, stored(self.pieces), BUNDLE, POLICY, **more)


def make_run(rng: Random) -> TrueRun:
    ticks = iter(range(1_000_000))
    run = TrueRun(Ledger(clock=lambda: float(next(ticks))), [])
    queues = [_send(run.ledger, device, rng) for device in ("sure", "gateway", "hasty")]
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])
        run.arrived.append(queue.pop(0))
    run.pieces = cut(run.arrived, rng)
    return run


def _send(ledger: Ledger, device: str, rng: Random) -> list[tuple[str, Message]]:
    """What arrives of the device's messages, in order."""
    arrived: list[Message] = []
    late: list[tuple[int, Message]] = []
    for number, message in enumerate(_messages(device, rng)):
        reached = not _attempts(ledger, device, message, rng) or rng.random() < 0.6
        if reached and device == "hasty" and not _is_promised(ledger, device, message) and rng.random() < 0.5:
            late.append((number + rng.randint(1, 3), message))
        elif reached:
            arrived.append(message)
        arrived += [message for due, message in late if due <= number]
        late = [(due, message) for due, message in late if due > number]
    return [(device, message) for message in (*arrived, *(message for _, message in late))]


def _is_promised(ledger: Ledger, device: str, message: Message) -> bool:
    return message in ledger.promised(device)


def _attempts(ledger: Ledger, device: str, message: Message, rng: Random) -> bool:
    """Whether it may have got lost."""
    gives_up = device == "hasty"
    for _ in range(rng.choice((0, 0, 0, 1, 2)) if not gives_up else 0):
        ledger.fail(ledger.begin(device, message), "no answer")
    attempt = ledger.begin(device, message)
    if gives_up and rng.random() < 0.4:
        if rng.random() < 0.5:  # else it is cut off
            ledger.fail(attempt, "no answer")
        return True
    ledger.acknowledge(attempt)
    if rng.random() < 0.15:
        ledger.acknowledge(ledger.begin(device, message))
    elif rng.random() < 0.1:
        assert attempt.ended_at is not None
        ledger.demote(attempt.ended_at, attempt.ended_at)
        return True
    return False


def _messages(device: str, rng: Random) -> Iterator[Message]:
    machines = ("a", "b") if device == "gateway" else ("m",)
    # Some rows before a full hour, or in the middle of one.
    time = HOUR + 1800 if device == "hasty" else HOUR - rng.randint(3, 12)
    for number in range(rng.randint(6, 12)):
        texts = []
        for _ in range(rng.randint(1, 4)):
            time += 1
            value = rng.randint(0, 4) + (7 if rng.random() < 0.1 else 0)
            row = {"ts": time, "machine": rng.choice(machines), "value": value, "fine": rng.randint(0, 40) / 16}
            texts.append(json.dumps(row))
        if device == "hasty" and rng.random() < 0.15:
            texts.insert(rng.randrange(len(texts) + 1), "17")
        poison = device == "hasty" and rng.random() < 0.15
        yield Message(f"{number}", b"{" if poison else f"[{','.join(texts)}]".encode(), tuple(texts))


def cut(arrived: list[tuple[str, Message]], rng: Random) -> list[Piece]:
    reference = Reference(BUNDLE, POLICY)
    pieces: list[Piece] = []
    waiting: dict[Lane, dict[str, list[dict[str, Any]]]] = {"readings": {}, "anomalies": {}, "rejected": {}}
    lives = Lives()
    spool = "0b"
    replaced_at = len(arrived) // 2 if rng.random() < 0.3 else None
    for place, (device, message) in enumerate(arrived):
        before = len(reference.expected.rows)
        reference.take(device, message)
        rows = list(reference.expected.rows.items())[before:]
        for identity, row in rows:
            _put(waiting["readings"], row.t, reading_row(identity, row))
            for event in lives.events(identity, row):
                _put(waiting["anomalies"], event["t"], event)
        for identity, body in reference.expected.rejected.items():
            if identity[:2] == (device, message.message_id):
                _put(waiting["rejected"], RECEIVED, rejected_row(identity, body))
        for lane, folders in waiting.items():
            if rng.random() < 0.3 and folders:
                _cut_until(rng.choice(sorted(folders)), lane, folders, spool, pieces)
        if place == replaced_at:
            spool = "0a"
    for lane, folders in waiting.items():
        _cut_until("date=unknown", lane, folders, spool, pieces)
    pieces += [
        Piece("insights", spool, hour_folder(parse_timestamp(window["t"]), now_micros=_END_OF_TIME), [window])
        for window in windows_of(reference, rng)
    ]
    return pieces


def windows_of(reference: Reference, rng: Random) -> Iterator[dict[str, Any]]:
    """All closed; now and then a row came too late for its own window, and the last of the series tells of it."""
    starts: dict[tuple[str, str], Counter[int]] = {}
    for identity, row in reference.expected.rows.items():
        micros = parse_timestamp(row.t)
        assert micros is not None
        seconds = micros // 1_000_000
        starts.setdefault((identity.device, row.series), Counter())[seconds - seconds % _WINDOW_SECS] += 1
    for (device, series), rows in starts.items():
        late = 0
        for start in sorted(rows):
            if start != max(rows) and rng.random() < 0.1:
                late += 1
                rows[start] -= 1
            if not rows[start]:
                continue
            last = {"late_rows": Number(late)} if late and start == max(rows) else {}
            times = {"t": _time(start), "end": _time(start + _WINDOW_SECS)}
            yield {"rows": Number(rows[start]), **times, "device": device, "series": series, **last}


def _time(second: int) -> str:
    return format_timestamp(second * 1_000_000)


def _put(folders: dict[str, list[dict[str, Any]]], time: str | None, row: dict[str, Any]) -> None:
    folders.setdefault(hour_folder(parse_timestamp(time), now_micros=_END_OF_TIME), []).append(row)


def _cut_until(
    last: str, lane: Lane, folders: dict[str, list[dict[str, Any]]], spool: str, pieces: list[Piece]
) -> None:
    pieces += [Piece(lane, spool, folder, folders.pop(folder)) for folder in sorted(folders) if folder <= last]


def reading_row(identity: RowId, row: ExpectedRow) -> dict[str, Any]:
    assert row.why is not None
    return _row(identity, row, row.reading, row.why)


@dataclass
class Lives:
    """Episodes of all series; one closes at its second scored row in a row that is no anomaly. Some stay open."""

    started: int = 0
    latest: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Of each series with an open episode: its last event."""
    quiet: Counter[tuple[str, str]] = field(default_factory=Counter)

    def events(self, identity: RowId, row: ExpectedRow) -> Iterator[dict[str, Any]]:
        series = identity.device, row.series
        if row.anomaly:
            self.quiet[series] = 0
            yield self._grow(series, identity, row)
        elif series in self.latest and row.score is not None:
            self.quiet[series] += 1
            if self.quiet[series] == _QUIET_ROWS:
                event = {name: value for name, value in self.latest.pop(series).items() if name != "rows"}
                yield {**event, "kind": "closed", "ended": event["t"]}

    def _grow(self, series: tuple[str, str], identity: RowId, row: ExpectedRow) -> dict[str, Any]:
        assert row.event_reading is not None
        assert row.event_why is not None
        before = self.latest.get(series)
        if before is None:
            self.started += 1
            before = {"episode": f"{self.started:032x}", "rows_total": Number(0), "started": row.t}
        event = {
            "kind": "opened" if "kind" not in before else "updated",
            "episode": before["episode"],
            "rows_total": Number(int(before["rows_total"]) + 1),
            "series": row.series,
            "device": identity.device,
            "started": before["started"],
            "last": row.t,
            "t": row.t,
            "rows": [_row(identity, row, row.event_reading, row.event_why)],
        }
        self.latest[series] = event
        return event


def _row(identity: RowId, row: ExpectedRow, reading: Any, why: Any) -> dict[str, Any]:
    return {
        "device": identity.device,
        "message": identity.message,
        "i": Number(identity.i),
        "t": row.t,
        "series": row.series,
        **({} if row.score is None else {"score": number(row.score), "threshold": number(row.threshold or 0.0)}),
        "anomaly": row.anomaly,
        **({} if row.no_score is None else {"no_score": row.no_score}),
        **({"why": [[name, number(share)] for name, share in why]} if why else {}),
        **({"reading": dict(reading)} if reading else {}),
    }


def rejected_row(identity: RowId, body: bytes) -> dict[str, Any]:
    source = Source(identity.device, "", identity.message)
    (part,) = reject(
        body,
        reason="not_json" if identity.i is None else "not_a_reading",
        detail="",
        source=source,
        input_name="telemetry",
        received=RECEIVED,
        i=identity.i,
    )
    row: dict[str, Any] = loads(msgspec.json.encode(to_builtins(part)))
    return row


def number(value: float) -> Number:
    return Number(repr(value))


def stored(pieces: list[Piece]) -> Storage:
    storage = Storage()
    latest: dict[tuple[Lane, str], tuple[int, str | None]] = {}
    for piece in pieces:
        last_no, previous = latest.get((piece.lane, piece.spool), (0, None))
        open_lane = piece.lane != "rejected"
        prefix = row_prefix(piece.lane, policy=piece.policy, site=piece.site, model=piece.model)
        body = compress(stored_lines(prefix, [msgspec.Raw(as_json(row).encode()) for row in piece.rows]))
        digest = sha256_hex(body)
        name = BlobName(piece.lane, piece.site, piece.folder, piece.spool, last_no + 1, digest[:16])
        meta = BlobMeta(
            piece.policy if open_lane else None,
            piece.model if open_lane else None,
            piece.spool,
            last_no + 1,
            len(piece.rows),
            digest,
            previous,
        )
        storage.add(format_blob_name(name), body, metadata_of(meta) if open_lane else None)
        latest[piece.lane, piece.spool] = (last_no + 1, digest)
    return storage


def as_json(value: Any) -> str:
    """JSON in which a `Number` is its own text."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{as_json(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_json, value)) + "]"
    return json.dumps(value)
