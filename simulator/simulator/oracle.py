"""The judge of a run: what was sent against what was stored. Pure; it knows nothing of how the modules work.

Every sent row must be in exactly one of `readings` and `rejected`, once. Its kept values must be the sender's own
numbers (rounded where the policy says so), its score that of an undisturbed computation. Every anomalous row must
be in exactly one episode, once, and no other row in any.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulator.faults import JUDGED_KINDS, Fault
from simulator.stored import Number, rejected_bodies

# Scores travel with nine significant digits; a tie in the last of them may fall either way.
_SCORE_TOLERANCE = 2e-9
_SHOWN_PROBLEMS = 20


class RowId(NamedTuple):
    """`i` is None for a message that is rejected whole."""

    device: str
    message: str
    i: int | None


@dataclass(frozen=True)
class ExpectedRow:
    """`reading` is what the policy lets through, numbers as `Number` text."""

    series: str
    index: int
    reading: Mapping[str, Any]
    score: float | None
    no_score: str | None
    anomaly: bool


@dataclass
class Expected:
    rows: dict[RowId, ExpectedRow] = field(default_factory=dict)
    rejected: dict[RowId, bytes] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        return len(self.rows) + len(self.rejected)


@dataclass
class Verdict:
    """What the comparison found. `problems` names the first of them, a line each."""

    sent: int = 0
    stored: int = 0
    rejected: int = 0
    missing: int = 0
    duplicated: int = 0
    values_differ: int = 0
    episodes_differ: int = 0
    unexpected: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not (self.missing or self.duplicated or self.values_differ or self.episodes_differ or self.unexpected)

    def note(self, problem: str) -> None:
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(problem)


def judge(
    expected: Expected,
    *,
    readings: Sequence[Mapping[str, Any]],
    rejected: Sequence[dict[str, Any]],
    anomalies: Sequence[Mapping[str, Any]],
) -> Verdict:
    verdict = Verdict(sent=expected.sent)
    _judge_places(expected, readings, rejected, verdict)
    _judge_values(expected, readings, verdict)
    _judge_rejected(expected, rejected, verdict)
    _judge_episodes(expected, anomalies, verdict)
    return verdict


def row_id(row: Mapping[str, Any]) -> RowId:
    i = row.get("i")
    return RowId(str(row.get("device")), str(row.get("message")), None if i is None else int(i))


def _judge_places(
    expected: Expected,
    readings: Iterable[Mapping[str, Any]],
    rejected: Iterable[dict[str, Any]],
    verdict: Verdict,
) -> None:
    in_readings = Counter(row_id(row) for row in readings)
    in_rejected = Counter(row_id(row) for row, _ in rejected_bodies(rejected))
    verdict.stored = sum(in_readings.values())
    verdict.rejected = sum(in_rejected.values())
    for identity in (*expected.rows, *expected.rejected):
        places = in_readings[identity] + in_rejected[identity]
        if places == 0:
            verdict.missing += 1
            verdict.note(f"{_name(identity)} is nowhere")
        elif places > 1:
            verdict.duplicated += 1
            where = f"{in_readings[identity]} times in readings, {in_rejected[identity]} times in rejected"
            verdict.note(f"{_name(identity)} is there {where}")
        elif (identity in expected.rows) != (in_readings[identity] == 1):
            verdict.values_differ += 1
            verdict.note(f"{_name(identity)} is in the wrong lane")
    for identity in in_readings.keys() | in_rejected.keys():
        if identity not in expected.rows and identity not in expected.rejected:
            verdict.unexpected += 1
            verdict.note(f"{_name(identity)} was never sent")


def _judge_values(expected: Expected, readings: Iterable[Mapping[str, Any]], verdict: Verdict) -> None:
    for row in readings:
        wanted = expected.rows.get(row_id(row))
        if wanted is None:
            continue
        for difference in _differences(wanted, row):
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))}: {difference}")
            break


def _differences(wanted: ExpectedRow, row: Mapping[str, Any]) -> Iterable[str]:
    reading = row.get("reading") or {}
    for name in wanted.reading.keys() | reading.keys():
        if not same_value(wanted.reading.get(name), reading.get(name)):
            yield f"{name} is {reading.get(name)!r}, it should be {wanted.reading.get(name)!r}"
    if not same_score(wanted.score, row.get("score")):
        yield f"its score is {row.get('score')}, it should be {wanted.score}"
    if (row.get("no_score") or None) != wanted.no_score:
        yield f"no_score is {row.get('no_score')!r}, it should be {wanted.no_score!r}"
    if bool(row.get("anomaly", False)) != wanted.anomaly:
        yield f"anomaly is {row.get('anomaly')!r}, it should be {wanted.anomaly!r}"


def same_value(wanted: object, found: object) -> bool:
    """Numbers are compared as text; a number is never equal to a string of its digits."""
    return type(wanted) is type(found) and wanted == found


def same_score(wanted: float | None, found: object) -> bool:
    if wanted is None or found is None:
        return wanted is None and found is None
    if not isinstance(found, Number):
        return False
    return abs(float(found) - wanted) <= _SCORE_TOLERANCE * max(abs(wanted), 1e-300)


def _judge_rejected(expected: Expected, rejected: Iterable[dict[str, Any]], verdict: Verdict) -> None:
    for row, body in rejected_bodies(rejected):
        wanted = expected.rejected.get(row_id(row))
        if wanted is not None and wanted != body:
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))}: its rejected bytes are not those that were sent")


def _judge_episodes(expected: Expected, anomalies: Iterable[Mapping[str, Any]], verdict: Verdict) -> None:
    found = Counter(row_id(row) for event in anomalies for row in event.get("rows", ()))
    for identity, wanted in expected.rows.items():
        times = found.pop(identity, 0)
        if times != int(wanted.anomaly):
            verdict.episodes_differ += 1
            verdict.note(f"{_name(identity)} is in episodes {times} times, it should be {int(wanted.anomaly)}")
    for identity in found:
        verdict.episodes_differ += 1
        verdict.note(f"{_name(identity)} is in an episode but was never sent")


def _name(identity: RowId) -> str:
    row = "" if identity.i is None else f" row {identity.i}"
    return f"{identity.device} message {identity.message}{row}"


@dataclass(frozen=True)
class Episode:
    """An episode as stored: which rows of which series it holds."""

    name: str
    series: str
    indexes: frozenset[int]


def collect_episodes(expected: Expected, anomalies: Iterable[Mapping[str, Any]]) -> list[Episode]:
    rows: dict[str, dict[tuple[str, str], set[int]]] = {}
    for event in anomalies:
        members = rows.setdefault(str(event["episode"]), {})
        for row in event.get("rows", ()):
            identity = row_id(row)
            if wanted := expected.rows.get(identity):
                members.setdefault((identity.device, wanted.series), set()).add(wanted.index)
    return [
        Episode(name, series, frozenset(members[device, series]))
        for name, members in rows.items()
        for device, series in sorted(members)
    ]


@dataclass(frozen=True)
class FaultScore:
    """How well the episodes tell the injected faults. `found` and `injected` are per kind."""

    injected: Counter[str]
    found: Counter[str]
    false_episodes: Counter[str]  # per series

    @property
    def judged(self) -> tuple[int, int]:
        """Found and injected, of the kinds that a detector has to find."""
        return sum(self.found[kind] for kind in JUDGED_KINDS), sum(self.injected[kind] for kind in JUDGED_KINDS)

    @property
    def good_enough(self) -> bool:
        found, injected = self.judged
        return found >= 0.8 * injected and all(count <= 1 for count in self.false_episodes.values())


def score_faults(faults: Sequence[Fault], episodes: Sequence[Episode], *, window_rows: int) -> FaultScore:
    """Judged by rows, so that neither an endless episode nor a detector that always shouts looks good.

    A fault reaches from its first row to the last row whose window of `window_rows` still holds one of its rows. It is
    found by an episode with a row in that reach, but an episode finds only the first fault that it touches: who sees it
    was told once. Rows in no fault's reach are false alarms, also within an episode that has found something: each run
    of them counts as one false episode per `window_rows` begun, which is how long one odd row may upset the model.
    """
    found: set[Fault] = set()
    false: Counter[str] = Counter()
    for episode in episodes:
        reaches = {
            fault: range(fault.first, fault.last + window_rows) for fault in faults if fault.machine == episode.series
        }
        touched = [fault for fault, reach in reaches.items() if not episode.indexes.isdisjoint(reach)]
        if touched:
            found.add(min(touched, key=lambda fault: fault.first))
        strays = (index for index in episode.indexes if not any(index in reach for reach in reaches.values()))
        if alarms := sum(-(-length // window_rows) for length in run_lengths(strays)):
            false[episode.series] += alarms
    return FaultScore(
        injected=Counter(fault.kind for fault in faults),
        found=Counter(fault.kind for fault in found),
        false_episodes=false,
    )


def run_lengths(indexes: Iterable[int]) -> list[int]:
    """Lengths of the runs of consecutive numbers, in order."""
    lengths: list[int] = []
    last: int | None = None
    for index in sorted(indexes):
        if last is not None and index == last + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
        last = index
    return lengths
