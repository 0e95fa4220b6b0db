"""How well episodes tell the faults that were injected. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.faults import JUDGED_KINDS, Fault
from simulator.oracle import Expected, row_id


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
