from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import to_builtins

from contract.messages import Source, reject
from simulator.oracle import (
    Expected,
    ExpectedRow,
    RowId,
    Verdict,
    insight_problems,
    judge,
    same_score,
)
from simulator.stored import Number


@dataclass
class Run:
    """A run in which nothing went wrong, for tests to spoil."""

    expected: Expected
    readings: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    anomalies: list[dict[str, Any]]

    insights: list[dict[str, Any]]
    broken: list[str]

    def judge(self) -> Verdict:
        return judge(
            self.expected,
            readings=self.readings,
            rejected=self.rejected,
            anomalies=self.anomalies,
            insights=self.insights,
            broken=self.broken,
        )


AT = "2026-11-23T18:00:00Z"


def stored(i: int, *, score: str | None, anomaly: bool = False, no_score: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": "sha256:p", "site": "s", "model": "sha256:m", "device": "d", "message": "d-1"}
    row |= {"i": Number(i), "t": AT, "series": "m", "anomaly": anomaly, "reading": {"value": Number("1.10")}}
    if score is not None:
        row |= {"score": Number(score), "threshold": Number("5.5")}
    if anomaly:
        row["why"] = [["value", Number("1")]]
    if no_score is not None:
        row["no_score"] = no_score
    return row


@pytest.fixture
def run() -> Run:
    expected = Expected(model="sha256:m")
    rows = [stored(0, score=None, no_score="warm_up"), stored(1, score="1.5"), stored(2, score="9.25", anomaly=True)]
    for row in rows:
        score = float(row["score"]) if "score" in row else None
        expected.rows[RowId("d", "d-1", int(row["i"]))] = ExpectedRow(
            "m",
            int(row["i"]),
            {"value": Number("1.10")},
            score,
            row.get("no_score"),
            row["anomaly"],
            AT,
            None if score is None else 5.5,
        )
    expected.rejected[RowId("d", "d-2", None)] = b"poison"
    rejected = {"site": "s", "device": "d", "module": "", "message": "d-2", "input": "telemetry", "reason": "not_json"}
    return Run(
        expected,
        rows,
        [{**rejected, "body_b64": b64encode(b"poison").decode()}],
        [
            {"episode": "e1", "kind": "opened", "rows_total": Number(1), "rows": [deepcopy(rows[2])]},
            {"episode": "e1", "kind": "closed", "rows_total": Number(1)},
        ],
        [{"device": "d", "series": "m", "t": AT, "rows": Number("2"), "late_rows": Number("1")}],
        [],
    )


def test_a_run_in_which_nothing_went_wrong_is_intact(run: Run) -> None:
    verdict = run.judge()
    assert verdict.intact
    assert (verdict.sent, verdict.stored, verdict.rejected, verdict.problems) == (4, 3, 1, [])


def put_in_the_episode(run: Run, row: dict[str, Any]) -> None:
    run.anomalies[0]["rows"].append(row)
    for event in run.anomalies:
        event["rows_total"] = Number(2)


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
        (lambda run: run.readings[1]["reading"].clear(), "values_differ", "value is absent"),
        (lambda run: run.readings[1]["reading"].update(operator="x"), "values_differ", "operator is 'x'"),
        (lambda run: run.readings[1].update(score=Number("1.50000001")), "values_differ", "its score is 1.50000001"),
        (lambda run: run.readings[1]["reading"].update(operator=None), "values_differ", "operator is None"),
        (
            lambda run: run.readings[1].update(operator=None),
            "values_differ",
            "operator is None, it should not be there",
        ),
        (lambda run: run.readings[1].update(module=""), "values_differ", "module is '', it should not be there"),
        (lambda run: run.readings[1].update(why=[]), "values_differ", "why is [], it should not be there"),
        (lambda run: run.readings[1].update(no_score=None), "values_differ", "no_score is None, it should not be"),
        (lambda run: run.readings[1].pop("anomaly"), "values_differ", "anomaly is None, it should be False"),
        (lambda run: run.readings[1].update(t="1999-01-01T00:00:00Z"), "values_differ", "t is '1999"),
        (lambda run: run.readings[1].pop("t"), "values_differ", "t is None"),
        (lambda run: run.readings[1].update(series="n"), "values_differ", "series is 'n', it should be 'm'"),
        (lambda run: run.readings[1].update(threshold=Number("5.6")), "values_differ", "its threshold is 5.6"),
        (lambda run: run.readings[0].update(threshold=Number("5.5")), "values_differ", "its threshold is 5.5"),
        (lambda run: run.readings[1].pop("policy"), "values_differ", "policy is absent, it should be there"),
        (lambda run: run.readings[1].update(site=""), "values_differ", "site is '', it should be a text"),
        (lambda run: run.readings[1].update(model="sha256:n"), "values_differ", "model is 'sha256:n'"),
        (lambda run: run.readings[1].update(score=None), "values_differ", "its score is None"),
        (lambda run: run.rejected[0].pop("site"), "values_differ", "its rejected row differs in site"),
        (lambda run: run.rejected[0].update(reading={}), "values_differ", "its rejected row differs in reading"),
        (lambda run: run.insights[0].pop("late_rows"), "values_differ", "insights count 2 rows, there are 3"),
        (lambda run: run.insights.append(run.insights[0]), "values_differ", "insights count 6 rows, there are 3"),
        (lambda run: run.insights[0].update(untimed_rows=Number("1")), "values_differ", "insights count 4 rows"),
        (lambda run: run.broken.append("a batch is broken"), "values_differ", "a batch is broken"),
        (lambda run: run.readings[0].update(no_score="gap"), "values_differ", "no_score is 'gap'"),
        (lambda run: run.readings[1].update(anomaly=True), "values_differ", "anomaly is True"),
        (
            lambda run: run.rejected[0].update(body_b64=b64encode(b"poisoN").decode()),
            "values_differ",
            "not those that were sent",
        ),
        (
            lambda run: run.anomalies.append(
                {"episode": "e2", "kind": "opened", "rows_total": Number(1), "rows": [run.readings[2]]}
            ),
            "episodes_differ",
            "row 2 is in episodes 2 times, it should be 1",
        ),
        (lambda run: run.anomalies.clear(), "episodes_differ", "row 2 is in episodes 0 times"),
        (
            lambda run: put_in_the_episode(run, run.readings[1]),
            "episodes_differ",
            "row 1 is in episodes 1 times, it should be 0",
        ),
        (
            lambda run: put_in_the_episode(run, {"device": "d", "message": "y", "i": Number(0)}),
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


def in_parts(run: Run, body: bytes) -> list[dict[str, Any]]:
    run.expected.rejected = {RowId("d", "d-2", None): body}
    source = Source("d", "", "d-2")
    parts = reject(body, reason="not_json", detail="", source=source, input_name="telemetry", received="now")
    return [{"site": "s", **to_builtins(part)} for part in parts]


def test_a_rejected_body_in_parts_is_one_row(run: Run) -> None:
    run.rejected = in_parts(run, bytes(range(256)) * 1000)
    assert len(run.rejected) == 2
    assert run.judge().intact
    run.rejected.pop()
    verdict = run.judge()
    assert (verdict.missing, verdict.unexpected) == (1, 0)


@pytest.mark.parametrize("again", [[0], [1], [0, 1]])
def test_a_part_that_is_stored_twice_is_a_duplicate(run: Run, again: list[int]) -> None:
    parts = in_parts(run, bytes(range(256)) * 1000)
    run.rejected = [*parts, *(parts[number] for number in again)]
    verdict = run.judge()
    assert (verdict.duplicated, verdict.values_differ) == (1, 0)


def test_a_second_part_with_other_bytes_is_a_difference_too(run: Run) -> None:
    parts = in_parts(run, bytes(range(256)) * 1000)
    run.rejected = [parts[0], {**parts[0], "body_b64": b64encode(b"other").decode()}, parts[1]]
    verdict = run.judge()
    assert (verdict.duplicated, verdict.values_differ) == (1, 1)


def test_parts_of_a_row_that_is_stored_as_a_reading_are_unexpected(run: Run) -> None:
    parts = in_parts(run, bytes(range(256)) * 1000)
    run.rejected = [*parts, {**parts[0], "message": "d-1", "i": Number(1)}]
    verdict = run.judge()
    assert (verdict.duplicated, verdict.unexpected) == (0, 1)


def test_insights_are_judged_only_when_given(run: Run) -> None:
    assert judge(run.expected, readings=run.readings, rejected=run.rejected, anomalies=run.anomalies).intact


def test_a_series_without_any_time_needs_no_insights(run: Run) -> None:
    untimed = ExpectedRow("n", 0, {}, None, "warm_up", False)
    run.expected.rows[RowId("e", "e-1", 0)] = untimed
    assert insight_problems(run.expected, run.insights) == []
    run.expected.rows[RowId("e", "e-1", 1)] = replace(untimed, t=AT)
    assert insight_problems(run.expected, run.insights) == ["e series n: insights count 0 rows, there are 2"]


def test_scores_may_differ_in_the_last_of_nine_digits_only() -> None:
    assert same_score(1.23456789, Number("1.23456789"))
    assert same_score(1.23456789, Number("1.234567891"))
    assert not same_score(1.23456789, Number("1.23456799"))
    assert not same_score(None, Number("0"))
    assert not same_score(0.0, None)
    assert not same_score(1.0, "1.0")
