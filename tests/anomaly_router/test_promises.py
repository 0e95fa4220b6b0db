"""What holds for any rows, any cut into messages and any kill: nothing lost, nothing twice, nothing told."""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from anomaly_router.settings import Settings
from contract.messages import ScoredRow
from edge_module import OutboxMessage
from edge_module.testing import Bench, SimulatedCrash
from tests.anomaly_router.scores import events, feed, make_bench, readings, row, scores, windows

SETTINGS: dict[str, object] = {"episode_close_after_rows": 2, "episode_rows_per_event": 3, "insight_window_secs": 10}
STEPS = ("seen_checked", "handled", "before_commit", "after_commit", "tick_before_commit")
QUICK = hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def folder() -> Iterator[Path]:
    path = tempfile.mkdtemp()
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


_secs = st.none() | st.integers(0, 120)
_plan = st.lists(
    st.tuples(_secs, st.booleans(), st.sampled_from(["pump-1", "pump-2"]), st.booleans()), min_size=1, max_size=25
)


def _rows(plan: list[tuple[int | None, bool, str, bool]]) -> list[ScoredRow]:
    return [
        row(i, secs=secs, anomaly=anomaly, series=series, score=2.0 if anomaly else 0.5 if scored else None)
        for i, (secs, anomaly, series, scored) in enumerate(plan)
    ]


def _cut(rows: list[ScoredRow], sizes: list[int]) -> list[list[ScoredRow]]:
    pieces, rest = [], rows
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    return [piece for piece in [*pieces, rest] if piece]


def _identity(text: bytes) -> int:
    return int(msgspec.json.decode(text)["i"])


def _check_conserved(rows: list[ScoredRow], emitted: list[OutboxMessage]) -> list[tuple[str, ...]]:
    """Each row once in readings; each anomalous row once in one episode; each row counted once in the windows."""
    assert sorted(map(_identity, readings(emitted))) == [each.i for each in rows]
    happened = events(emitted)
    members: dict[str, list[int]] = {}
    for event in happened:
        members.setdefault(event.episode, []).extend(map(_identity, event.rows))
        assert event.rows_total == len(members[event.episode])
    assert Counter(i for each in members.values() for i in each) == Counter(each.i for each in rows if each.anomaly)
    for episode in members:
        kinds = [event.kind for event in happened if event.episode == episode]
        assert (kinds[0], kinds[-1]) == ("opened", "closed")
        assert set(kinds[1:-1]) <= {"updated"}
    closed = windows(emitted)
    counted = sum(window.rows + window.late_rows + window.untimed_rows for window in closed)
    # Late and untimed rows after a series' last window stay in its state.
    assert counted <= len(rows)
    assert sum(window.rows for window in closed) <= sum(each.t is not None for each in rows)
    return sorted((each, *map(str, sorted(members[each]))) for each in members)


@QUICK
@given(_plan, st.lists(st.integers(1, 6)), st.lists(st.integers(1, 6)))
def test_episodes_and_windows_do_not_depend_on_how_rows_are_cut_into_messages(
    plan: list[tuple[int | None, bool, str, bool]], one: list[int], two: list[int]
) -> None:
    rows = _rows(plan)
    outcomes = []
    for sizes in (one, two):
        with folder() as path:
            bench = make_bench(path, settings=SETTINGS)
            emitted: list[OutboxMessage] = []
            for n, piece in enumerate(_cut(rows, sizes)):
                emitted += feed(bench, scores(*piece, message=f"m-{n}"), str(n)).emitted
            emitted += bench.tick(10_000)
            episodes = [members for _, *members in _check_conserved(rows, emitted)]
            outcomes.append((sorted(episodes), sorted(map(msgspec.json.encode, windows(emitted)))))
            bench.close()
    assert outcomes[0] == outcomes[1]


def _sent(message: OutboxMessage) -> tuple[object, ...]:
    return message.output, message.body, message.properties, message.message_id


def _feed_with_kills(bench: Bench[Settings], bodies: list[bytes], kills: dict[int, str]) -> list[OutboxMessage]:
    for n, body in enumerate(bodies):
        if n in kills:
            bench.crash_next(kills[n])
            try:
                feed(bench, body, str(n))
                bench.engine.tick()
            except SimulatedCrash:
                pass
            bench.restart()
        # edgeHub delivers again what was not acknowledged; a repeat changes nothing.
        feed(bench, body, str(n))
    bench.tick(10_000)
    return bench.kept


@QUICK
@given(_plan, st.lists(st.integers(1, 4)), st.dictionaries(st.integers(0, 12), st.sampled_from(STEPS), max_size=5))
@example(
    plan=[(n, n % 3 > 0, "pump-1", True) for n in range(12)],
    sizes=[1] * 12,
    kills=dict(enumerate([*STEPS, *STEPS])),
)
@example(  # within one message the series that was first is also the last: it closes last, with and without a kill
    plan=[(0, True, "pump-1", True), (0, True, "pump-2", True), (0, True, "pump-1", True)],
    sizes=[],
    kills={0: "after_commit"},
)
def test_kills_at_any_step_change_no_byte_of_what_is_sent(
    plan: list[tuple[int | None, bool, str, bool]], sizes: list[int], kills: dict[int, str]
) -> None:
    rows = _rows(plan)
    bodies = [scores(*piece, message=f"m-{n}") for n, piece in enumerate(_cut(rows, sizes))]
    with folder() as path, folder() as other:
        make_bench(path, settings=SETTINGS).close()
        shutil.copytree(path, other, dirs_exist_ok=True)  # the same id key, the same epoch
        undisturbed = _feed_with_kills(make_bench(path, settings=SETTINGS), bodies, {})
        killed = _feed_with_kills(make_bench(other, settings=SETTINGS), bodies, kills)
        _check_conserved(rows, killed)
        assert list(map(_sent, killed)) == list(map(_sent, undisturbed))


@pytest.mark.parametrize("step", ["handled", "before_commit"])
def test_a_disk_that_refuses_once_changes_no_byte_of_what_is_sent(tmp_path: Path, step: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    make_bench(first, settings=SETTINGS).close()
    shutil.copytree(first, second)
    bodies = [scores(row(n, secs=n, anomaly=n % 4 > 1), message=f"m-{n}") for n in range(8)]
    expected = _feed_with_kills(make_bench(first, settings=SETTINGS), bodies, {})
    bench = make_bench(second, settings=SETTINGS)
    for n, body in enumerate(bodies):
        bench.fail_next(step)
        assert feed(bench, body, str(n)).reason == "disk_full"
        assert feed(bench, body, str(n)).how == "handled"
    bench.tick(10_000)
    assert list(map(_sent, bench.kept)) == list(map(_sent, expected))


# Non-interference: two runs that differ only in denied values

DENYING = """edgeweir_policy: 1
name: denying
version: "1"
lanes:
  readings: {purpose: a}
  anomalies: {purpose: b}
  insights: {purpose: c}
fields:
  - {path: /value, class: operational, transform: keep, lanes: [readings, insights]}
  - {path: /operator, class: personal, transform: drop}
"""
_text = st.text(max_size=12)
_denied = st.fixed_dictionaries(
    {"operator": _text | st.integers(), "nested": st.dictionaries(_text, _text | st.integers(), max_size=3)},
    optional={"serial_number": _text, "list": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3)},
)


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _told(bench: Bench[Settings], records: list[logging.LogRecord]) -> tuple[object, ...]:
    """Everything that the module tells: lanes, metrics, health, twin, logs, methods."""
    metrics = [line for line in bench.metrics.exposition().splitlines() if b"_created" not in line]
    return (
        list(map(_sent, bench.kept)),
        metrics,
        bench.health.reasons(),
        bench.reported,
        bench.module.status(),
        bench.method("policy_info"),
        [(record.getMessage(), str(record.__dict__.get("fields"))) for record in records],
    )


@QUICK
@given(_plan, st.lists(st.tuples(_denied, _denied), min_size=3, max_size=3), _text, _text)
def test_runs_that_differ_only_in_denied_values_tell_the_same_bytes(
    plan: list[tuple[int | None, bool, str, bool]],
    denied: list[tuple[dict[str, object], dict[str, object]]],
    device: str,
    feature: str,
) -> None:
    log = logging.getLogger("edge_module.bench")
    told = []
    with folder() as origin:
        make_bench(origin, DENYING, settings=SETTINGS).close()
        for side in (0, 1):
            handler = _Recorder()
            log.addHandler(handler)
            with folder() as path:
                shutil.copytree(origin, path, dirs_exist_ok=True)
                bench = make_bench(path, DENYING, settings=SETTINGS)
                for i, (secs, anomaly, series, _) in enumerate(plan):
                    hidden = denied[i % 3][side]
                    text = msgspec.json.encode({**hidden, "value": i})
                    if side and i % 2:
                        text = msgspec.json.encode({"value": i, **hidden})
                    each = row(
                        i,
                        secs=secs,
                        anomaly=anomaly,
                        series=f"{device}/{series}" if side else series,
                        score=2.0,
                        reading=text.decode(),
                        why=[("value", 0.5), (feature if side and feature != "value" else "operator", 0.25)],
                    )
                    body = scores(each, device=f"d{device}" if side else "d", message=f"{side}-{i}")
                    assert feed(bench, body, str(i)).how == "handled"
                bench.tick(10_000)
                told.append(_told(bench, handler.records))
                bench.close()
            log.removeHandler(handler)
    assert told[0] == told[1]
