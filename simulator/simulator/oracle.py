"""What must be stored against what is stored. Pure; it knows nothing of how the modules work.

`simulator.judgement` is the whole judge of a run; here every row of the messages that arrived is compared with what is
there. Each must be in exactly one of `readings` and `rejected`, once. It must have the keys that the policy lets out
and no other, its kept values must be the sender's own numbers (rounded where the policy says so), its score and the
shares behind it those of an undisturbed computation. Every anomalous row must be in exactly one episode, once, with the
same values, and no other row in any; each episode must be a whole life (`simulator.episode_events`). Every row of a
series must be counted once by its insights.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from contract.messages import RejectedPart
from simulator.episode_events import episode_problems
from simulator.insight_windows import second_of, window_problems
from simulator.stored import Number, incomplete_bodies, rejected_bodies

# Scores travel with nine significant digits; a tie in the last of them may fall either way.
_SCORE_TOLERANCE = 2e-9
_SHOWN_PROBLEMS = 20
# What is spliced in front of every line of the open lanes.
_SPLICED = ("policy", "site", "model")
_REJECTED_KEYS = frozenset({"site", *RejectedPart.__struct_fields__})
FAULT_KINDS = (
    "missing",
    "duplicated",
    "values_differ",
    "episodes_differ",
    "unexpected",
    "out_of_order",
    "overwritten",
    "not_fresh",
)
# What a policy that names the sender and the row, and denies no part of the verdict, lets out of the envelope.
USUAL_ENVELOPE = frozenset(
    ("device", "message", "i", "t", "series", "score", "threshold", "anomaly", "no_score", "why")
)


Shares = Sequence[tuple[str, float]]


class RowId(NamedTuple):
    """`i` is None for a message that is rejected whole."""

    device: str
    message: str
    i: int | None


@dataclass(frozen=True)
class ExpectedRow:
    """`reading` is what the policy lets through, numbers as `Number` text; `threshold` is None without a score.

    `why` holds the largest shares of an anomalous row, None where they are not judged; so with `event_reading` and
    `event_why`, the row as it stands in its episode.
    """

    series: str
    index: int
    reading: Mapping[str, Any]
    score: float | None
    no_score: str | None
    anomaly: bool
    t: str | None = None
    threshold: float | None = None
    why: Shares | None = None
    event_reading: Mapping[str, Any] | None = None
    event_why: Shares | None = None


@dataclass
class Expected:
    """`envelope` names the parts that the policy lets out on `readings`, `event_envelope` those on `anomalies`.

    `model` is the bundle's digest, `policy` the policy's hash; None for any. `reasons` are the codes under which bodies
    are rejected, of those for which they are judged.
    """

    rows: dict[RowId, ExpectedRow] = field(default_factory=dict)
    rejected: dict[RowId, bytes] = field(default_factory=dict)
    reasons: dict[RowId, str] = field(default_factory=dict)
    envelope: frozenset[str] = USUAL_ENVELOPE
    event_envelope: frozenset[str] = USUAL_ENVELOPE
    model: str | None = None
    policy: str | None = None

    @property
    def sent(self) -> int:
        return len(self.rows) + len(self.rejected)


@dataclass
class Verdict:
    """What the comparison found. `problems` names the first of them, a line each.

    `sent` counts the rows of messages that arrived, `promised` and `attempted` messages as `simulator.ledger` has them.
    """

    sent: int = 0
    promised: int = 0
    attempted: int = 0
    stored: int = 0
    rejected: int = 0
    missing: int = 0
    duplicated: int = 0
    values_differ: int = 0
    episodes_differ: int = 0
    unexpected: int = 0
    out_of_order: int = 0
    overwritten: int = 0
    not_fresh: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, int]:
        """What was found, by kind, as far as there is any."""
        return {kind: count for kind in FAULT_KINDS if (count := getattr(self, kind))}

    @property
    def differing(self) -> int:
        """All faults but missing and duplicated rows, for a line that counts three kinds."""
        return sum(self.faults.values()) - self.missing - self.duplicated

    @property
    def intact(self) -> bool:
        return not self.faults

    def note(self, problem: str) -> None:
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(problem)

    def note_all(self, problems: Iterable[str]) -> int:
        """How many they are."""
        found = list(problems)
        for problem in found:
            self.note(problem)
        return len(found)


def judge(
    expected: Expected,
    *,
    readings: Sequence[Mapping[str, Any]],
    rejected: Sequence[dict[str, Any]],
    anomalies: Sequence[Mapping[str, Any]],
    insights: Sequence[Mapping[str, Any]] | None = None,
    broken: Iterable[str] = (),
) -> Verdict:
    """`insights` are judged when given, which is fair once every window is closed; `broken` tells of broken batches."""
    verdict = Verdict(sent=expected.sent)
    _judge_places(expected, readings, rejected, verdict)
    _judge_values(expected, readings, verdict)
    _judge_rejected(expected, rejected, verdict)
    _judge_episodes(expected, anomalies, verdict)
    for problem in (*broken, *(insight_problems(expected, insights) if insights is not None else ())):
        verdict.values_differ += 1
        verdict.note(problem)
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
        for difference in _differences(expected, wanted, row):
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))}: {difference}")
            break


def _differences(expected: Expected, wanted: ExpectedRow, row: Mapping[str, Any]) -> Iterable[str]:
    yield from _row_differences(wanted, wanted.reading, wanted.why, expected.envelope, _SPLICED, row)
    yield from _origin_differences(expected, row)


def _event_differences(expected: Expected, wanted: ExpectedRow, row: Mapping[str, Any]) -> Iterable[str]:
    """The row as it stands in an episode, where the policy may let out other parts of it."""
    if wanted.event_reading is not None:
        yield from _row_differences(wanted, wanted.event_reading, wanted.event_why, expected.event_envelope, (), row)


def _row_differences(
    wanted: ExpectedRow,
    wanted_reading: Mapping[str, Any],
    why: Shares | None,
    envelope: frozenset[str],
    spliced: Iterable[str],
    row: Mapping[str, Any],
) -> Iterable[str]:
    reading = row.get("reading", {})
    if not isinstance(reading, dict):
        yield f"its reading is {reading!r}"
        return
    for name in sorted(wanted_reading.keys() | reading.keys()):
        if not same_value(wanted_reading.get(name, _ABSENT), reading.get(name, _ABSENT)):
            yield f"{name} is {_shown(reading, name)}, it should be {_shown(wanted_reading, name)}"
    for name, value in (("score", wanted.score), ("threshold", wanted.threshold)):
        if name in envelope and not same_score(value, row.get(name)):
            yield f"its {name} is {row.get(name)}, it should be {value}"
    same = {"no_score": wanted.no_score, "anomaly": wanted.anomaly, "t": wanted.t, "series": wanted.series}
    for name, text in same.items():
        if name in envelope and not same_value(text, row.get(name)):
            yield f"{name} is {row.get(name)!r}, it should be {text!r}"
    if why is not None and not same_shares(why, row.get("why", [])):
        yield f"why is {row.get('why')}, it should be {why}"
    absent = {name for name in ("t", "score", "threshold", "no_score") if getattr(wanted, name) is None}
    # Of a row that is not anomalous nothing says why; of one that is, `why` itself has been looked at.
    if not wanted.anomaly or "why" not in row:
        absent.add("why")
    if not wanted_reading and "reading" not in row:
        absent.add("reading")
    for name in sorted(row.keys() ^ ({*spliced, "reading", *envelope} - absent)):
        yield f"{name} is {_shown(row, name)}, it should {'not be there' if name in row else 'be there'}"


_ABSENT = object()


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"


def _origin_differences(expected: Expected, row: Mapping[str, Any]) -> Iterable[str]:
    for name in (*_SPLICED, "device", "message"):
        if name in row and (type(row[name]) is not str or not row[name]):
            yield f"{name} is {row[name]!r}, it should be a text"
    if "i" in row and not isinstance(row["i"], Number):
        yield f"i is {row['i']!r}, it should be a number"
    for name, wanted in (("model", expected.model), ("policy", expected.policy)):
        if wanted is not None and row.get(name) != wanted:
            yield f"{name} is {row.get(name)!r}, it should be {wanted!r}"


def same_value(wanted: object, found: object) -> bool:
    """Numbers are compared as text; a number is never equal to a string of its digits."""
    return type(wanted) is type(found) and wanted == found


def same_score(wanted: float | None, found: object) -> bool:
    if wanted is None or found is None:
        return wanted is None and found is None
    if not isinstance(found, Number):
        return False
    return abs(float(found) - wanted) <= _SCORE_TOLERANCE * max(abs(wanted), 1e-300)


def same_shares(wanted: Shares, found: object) -> bool:
    if not isinstance(found, list) or len(found) != len(wanted):
        return False
    return all(
        isinstance(pair, list) and len(pair) == 2 and pair[0] == name and same_score(share, pair[1])
        for (name, share), pair in zip(wanted, found, strict=True)
    )


def _judge_rejected(expected: Expected, rejected: Sequence[dict[str, Any]], verdict: Verdict) -> None:
    for row, body in rejected_bodies(rejected):
        wanted = expected.rejected.get(row_id(row))
        if wanted is not None and wanted != body:
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))}: its rejected bytes are not those that were sent")
    whole = {row_id(row) for row, _ in rejected_bodies(rejected)}
    for row in incomplete_bodies(rejected):
        # A row of which there is nothing else is missing already.
        if row_id(row) in whole or row_id(row) not in expected.rejected:
            verdict.unexpected += 1
            verdict.note(f"{_name(row_id(row))}: parts of a rejected body without the others")
    for row in rejected:
        if strange := sorted(row.keys() - _REJECTED_KEYS) or sorted({"site", "reason"} - row.keys()):
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))}: its rejected row differs in {', '.join(strange)}")
        wanted_reason = expected.reasons.get(row_id(row))
        if wanted_reason is not None and not strange and not same_value(wanted_reason, row["reason"]):
            verdict.values_differ += 1
            verdict.note(f"{_name(row_id(row))} is rejected as {row['reason']!r}, it should be {wanted_reason!r}")


def _judge_episodes(expected: Expected, anomalies: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    events = [row for event in anomalies for row in event.get("rows", ())]
    found = Counter(map(row_id, events))
    for row in events:
        if wanted := expected.rows.get(row_id(row)):
            for difference in _event_differences(expected, wanted, row):
                verdict.values_differ += 1
                verdict.note(f"{_name(row_id(row))} in its episode: {difference}")
                break
    for identity, wanted in expected.rows.items():
        times = found.pop(identity, 0)
        if times != int(wanted.anomaly):
            verdict.episodes_differ += 1
            verdict.note(f"{_name(identity)} is in episodes {times} times, it should be {int(wanted.anomaly)}")
    for identity in found:
        verdict.episodes_differ += 1
        verdict.note(f"{_name(identity)} is in an episode but was never sent")
    verdict.episodes_differ += verdict.note_all(episode_problems(anomalies))


def _name(identity: RowId) -> str:
    row = "" if identity.i is None else f" row {identity.i}"
    return f"{identity.device} message {identity.message}{row}"


def insight_problems(expected: Expected, insights: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each series whose rows are not counted once: in their windows, as late, or as untimed."""
    times: dict[tuple[str, str], Counter[int | None]] = {}
    for identity, wanted in expected.rows.items():
        times.setdefault((identity.device, wanted.series), Counter())[second_of(wanted.t)] += 1
    return window_problems(times, insights, all_closed=True)
