from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import to_builtins

from contract.messages import Source, reject
from simulator.faults import Fault
from simulator.oracle import (
    Episode,
    Expected,
    ExpectedRow,
    RowId,
    Verdict,
    collect_episodes,
    judge,
    same_score,
    score_faults,
)
from simulator.stored import Number


@dataclass
class Run:
    """A run in which nothing went wrong, for tests to spoil."""

    expected: Expected
    readings: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    anomalies: list[dict[str, Any]]

    def judge(self) -> Verdict:
        return judge(self.expected, readings=self.readings, rejected=self.rejected, anomalies=self.anomalies)


def stored(i: int, *, score: str | None, anomaly: bool = False, no_score: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"device": "d", "message": "d-1", "i": Number(i), "reading": {"value": Number("1.10")}}
    if score is not None:
        row["score"] = Number(score)
    if anomaly:
        row["anomaly"] = True
    if no_score is not None:
        row["no_score"] = no_score
    return row


@pytest.fixture
def run() -> Run:
    expected = Expected()
    rows = [stored(0, score=None, no_score="warm_up"), stored(1, score="1.5"), stored(2, score="9.25", anomaly=True)]
    for row in rows:
        score = float(row["score"]) if "score" in row else None
        expected.rows[RowId("d", "d-1", int(row["i"]))] = ExpectedRow(
            "m", int(row["i"]), {"value": Number("1.10")}, score, row.get("no_score"), "anomaly" in row
        )
    expected.rejected[RowId("d", "d-2", None)] = b"poison"
    rejected = {"device": "d", "module": "", "message": "d-2", "input": "telemetry"}
    return Run(
        expected,
        rows,
        [{**rejected, "body_b64": b64encode(b"poison").decode()}],
        [
            {"episode": "e1", "kind": "opened", "rows": [deepcopy(rows[2])]},
            {"episode": "e1", "kind": "closed"},
        ],
    )


def test_a_run_in_which_nothing_went_wrong_is_intact(run: Run) -> None:
    verdict = run.judge()
    assert verdict.intact
    assert (verdict.sent, verdict.stored, verdict.rejected, verdict.problems) == (4, 3, 1, [])


Spoil = Callable[[Run], object]


@pytest.mark.parametrize(
    ("spoil", "fault", "problem"),
    [
        (lambda run: run.readings.pop(1), "missing", "d message d-1 row 1 is nowhere"),
        (lambda run: run.rejected.clear(), "missing", "d message d-2 is nowhere"),
        (lambda run: run.readings.append(run.readings[1]), "duplicated", "2 times in readings"),
        (lambda run: run.rejected.append(run.rejected[0]), "duplicated", "2 times in rejected"),
        (
            lambda run: run.rejected.append({**run.rejected[0], "message": "d-1", "i": Number(1)}),
            "duplicated",
            "1 times in readings, 1 times in rejected",
        ),
        (
            lambda run: run.readings.append({**run.readings[1], "message": "d-2", "i": None}) or run.rejected.clear(),
            "values_differ",
            "wrong lane",
        ),
        (lambda run: run.readings[1]["reading"].update(value=Number("1.1")), "values_differ", "value is '1.1'"),
        (lambda run: run.readings[1]["reading"].update(value="1.10"), "values_differ", "value is '1.10'"),
        (lambda run: run.readings[1]["reading"].clear(), "values_differ", "value is None"),
        (lambda run: run.readings[1]["reading"].update(operator="x"), "values_differ", "operator is 'x'"),
        (lambda run: run.readings[1].update(score=Number("1.50000001")), "values_differ", "its score is 1.50000001"),
        (lambda run: run.readings[1].update(score=None), "values_differ", "its score is None"),
        (lambda run: run.readings[0].update(no_score="gap"), "values_differ", "no_score is 'gap'"),
        (lambda run: run.readings[1].update(anomaly=True), "values_differ", "anomaly is True"),
        (
            lambda run: run.rejected[0].update(body_b64=b64encode(b"poisoN").decode()),
            "values_differ",
            "not those that were sent",
        ),
        (
            lambda run: run.anomalies.append({"episode": "e2", "rows": [run.readings[2]]}),
            "episodes_differ",
            "row 2 is in episodes 2 times, it should be 1",
        ),
        (lambda run: run.anomalies.clear(), "episodes_differ", "row 2 is in episodes 0 times"),
        (
            lambda run: run.anomalies[0]["rows"].append(run.readings[1]),
            "episodes_differ",
            "row 1 is in episodes 1 times, it should be 0",
        ),
        (
            lambda run: run.anomalies[0]["rows"].append({"device": "x", "message": "y", "i": Number(0)}),
            "episodes_differ",
            "never sent",
        ),
        (lambda run: run.readings.append({**run.readings[1], "message": "d-9"}), "unexpected", "never sent"),
    ],
)
def test_what_is_spoiled_is_found_and_nothing_else(run: Run, spoil: Spoil, fault: str, problem: str) -> None:
    spoil(run)
    verdict = run.judge()
    assert not verdict.intact
    kinds = ("missing", "duplicated", "values_differ", "episodes_differ", "unexpected")
    assert {kind: getattr(verdict, kind) for kind in kinds if getattr(verdict, kind)} == {fault: 1}
    assert problem in verdict.problems[0]


def test_a_rejected_body_in_parts_is_one_row(run: Run) -> None:
    body = bytes(range(256)) * 1000
    run.expected.rejected = {RowId("d", "d-2", None): body}
    parts = reject(
        body, reason="not_json", detail="", source=Source("d", "", "d-2"), input_name="telemetry", received="now"
    )
    run.rejected = [to_builtins(part) for part in parts]
    assert len(run.rejected) == 2
    assert run.judge().intact
    run.rejected.pop()
    assert run.judge().missing == 1


def test_scores_may_differ_in_the_last_of_nine_digits_only() -> None:
    assert same_score(1.23456789, Number("1.23456789"))
    assert same_score(1.23456789, Number("1.234567891"))
    assert not same_score(1.23456789, Number("1.23456799"))
    assert not same_score(None, Number("0"))
    assert not same_score(0.0, None)
    assert not same_score(1.0, "1.0")


def test_episodes_are_collected_over_their_events(run: Run) -> None:
    assert collect_episodes(run.expected, run.anomalies) == [Episode("e1", "m", frozenset({2}))]


FAULTS = [Fault("m", "spike", "flow", 10, 11), Fault("m", "stuck", "flow", 50, 90), Fault("n", "drift", "flow", 10, 60)]


def test_a_fault_is_found_by_an_episode_that_touches_it_or_its_wake() -> None:
    episodes = [Episode("a", "m", frozenset({13, 14})), Episode("b", "n", frozenset({12}))]
    score = score_faults(FAULTS, episodes, window_rows=4)
    assert score.found == {"spike": 1, "drift": 1}
    assert score.judged == (1, 2)
    assert not score.false_episodes
    assert not score.good_enough


def test_rows_out_of_every_faults_reach_are_false_also_in_an_episode_that_found_something() -> None:
    episodes = [
        Episode("a", "m", frozenset({10, 11, 14, 15})),
        Episode("b", "m", frozenset({50, 60})),
        Episode("c", "n", frozenset({1})),
        Episode("d", "n", frozenset({3, 5})),
    ]
    score = score_faults(FAULTS, episodes, window_rows=4)
    assert score.judged == (2, 2)
    assert score.false_episodes == {"m": 1, "n": 3}
    assert not score.good_enough
    assert score_faults(FAULTS, episodes[:3], window_rows=4).good_enough


def test_a_long_false_alarm_counts_once_for_every_window_it_lasts() -> None:
    for rows, times in ((4, 1), (5, 2), (9, 3)):
        score = score_faults(FAULTS, [Episode("a", "m", frozenset(range(100, 100 + rows)))], window_rows=4)
        assert score.false_episodes == {"m": times}


def test_an_episode_finds_only_the_first_fault_that_it_touches() -> None:
    endless = [Episode("a", "m", frozenset({10, 11, 12, *range(50, 90)}))]
    assert score_faults(FAULTS, endless, window_rows=4).judged == (1, 2)


SIX = [
    Fault("p", kind, "flow", first, first + 2)
    for kind, first in zip(
        ("spike", "level_shift", "stuck", "dropout", "spike", "stuck"), range(50, 410, 60), strict=True
    )
]


@pytest.mark.parametrize(
    "episodes",
    [
        [frozenset(range(16, 500))],
        [frozenset(range(first, first + 10)) for first in range(16, 500, 10)],
        [frozenset(range(16, 500, 7))],
        [frozenset(row for fault in SIX for row in range(fault.first, fault.last + 1))],
    ],
    ids=["every_row_in_one_episode", "every_row_in_many", "every_seventh_row", "right_rows_but_never_closed"],
)
def test_a_useless_detector_does_not_pass(episodes: list[frozenset[int]]) -> None:
    score = score_faults(SIX, [Episode(str(n), "p", rows) for n, rows in enumerate(episodes)], window_rows=16)
    assert not score.good_enough


def test_a_detector_that_tells_every_fault_passes() -> None:
    episodes = [Episode(str(n), "p", frozenset(range(fault.first, fault.last + 16))) for n, fault in enumerate(SIX)]
    score = score_faults(SIX, episodes, window_rows=16)
    assert score.judged == (6, 6)
    assert score.good_enough


def test_two_devices_that_name_one_machine_have_episodes_of_their_own(run: Run) -> None:
    other = deepcopy(run.readings[2]) | {"device": "e"}
    run.expected.rows[RowId("e", "d-1", 2)] = ExpectedRow("m", 7, {}, 9.25, None, True)
    run.anomalies.append({"episode": "e2", "kind": "opened", "rows": [other]})
    assert collect_episodes(run.expected, run.anomalies) == [
        Episode("e1", "m", frozenset({2})),
        Episode("e2", "m", frozenset({7})),
    ]
