"""How well a detector does on labelled rows: events found, and episodes that no label explains."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.detector import Detector, Floats, score
from trainer.labels import Event
from trainer.table import Series
from trainer.windows import cut

_PART = 50_000


@dataclass
class Evaluation:
    """Counts over all rows of all series."""

    rows: int = 0
    scored: int = 0
    anomalous: int = 0
    episodes: int = 0
    false_episodes: int = 0
    # kind -> (found, labelled)
    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def found(self) -> int:
        return sum(found for found, _ in self.kinds.values())

    @property
    def labelled(self) -> int:
        return sum(labelled for _, labelled in self.kinds.values())


def evaluate(
    detector: Detector,
    threshold: float,
    series: Sequence[Series],
    events: Sequence[Event],
    *,
    max_gap_secs: float,
    first_rows: Sequence[int],
) -> Evaluation:
    """Score every series and compare with the events, from row `first_rows[i]` of the i-th series on.

    An alarm up to a window after an event still has the event's rows in its window, so it counts for the event.
    Alarms closer than a window together are one episode.
    """
    result = Evaluation()
    for one, first_row in zip(series, first_rows, strict=True):
        rows, scores = score_series(detector, one, max_gap_secs)
        rows, scores = rows[rows >= first_row], scores[rows >= first_row]
        alarms = rows[scores > threshold]
        mine = [event for event in events if event.series == one.name and event.last >= first_row]
        episodes = _episodes(alarms, detector.length)
        result.rows += max(0, len(one.times) - first_row)
        result.scored += len(rows)
        result.anomalous += len(alarms)
        result.episodes += len(episodes)
        result.false_episodes += sum(
            not any(_touches(episode, event, detector.length) for event in mine) for episode in episodes
        )
        for event in mine:
            found, labelled = result.kinds.get(event.kind, (0, 0))
            hit = any(_touches(episode, event, detector.length) for episode in episodes)
            result.kinds[event.kind] = (found + hit, labelled + 1)
    result.kinds = dict(sorted(result.kinds.items()))
    return result


def score_series(detector: Detector, series: Series, max_gap_secs: float) -> tuple[NDArray[np.int64], Floats]:
    """The rows that have a whole window, and their scores."""
    windows = cut(series, detector.length, max_gap_secs)
    parts = [slice(start, start + _PART) for start in range(0, len(windows), _PART)]
    scores = [score(detector, windows.take(part))[0] for part in parts]
    return windows.rows, np.concatenate(scores) if scores else np.empty(0)


def _episodes(alarms: NDArray[np.int64], close_after_rows: int) -> list[tuple[int, int]]:
    if not len(alarms):
        return []
    pieces = np.split(alarms, np.flatnonzero(np.diff(alarms) > close_after_rows) + 1)
    return [(int(piece[0]), int(piece[-1])) for piece in pieces]


def _touches(episode: tuple[int, int], event: Event, slack_rows: int) -> bool:
    return episode[0] <= event.last + slack_rows and episode[1] >= event.first
