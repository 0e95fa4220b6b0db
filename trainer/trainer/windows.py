"""Windows over series: what the scorer will see, and nothing it would not.

A row with a missing feature is in no window. A step in time above `max_gap_secs`, either way, starts anew; so windows
never span a gap, nor two machines. A row without a readable time neither starts nor ends a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trainer.detector import Floats
from trainer.table import NO_TIME, Series

# Several sampling periods may be lost before the rows on both sides stop being neighbours.
GAP_PERIODS = 10


@dataclass(frozen=True)
class SeriesWindows:
    """Windows of one series, not yet copied out of it. `rows` is each window's newest row in the series."""

    view: Floats  # (positions, length, features), overlapping memory
    starts: NDArray[np.int64]  # (count,) positions of the windows in the view
    rows: NDArray[np.int64]  # (count,)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, part: slice | NDArray[np.bool_]) -> Floats:
        """A copy of these windows (count, length, features)."""
        return np.ascontiguousarray(self.view[self.starts[part]])


def usual_max_gap_secs(series: Sequence[Series]) -> float:
    """Ten of the usual sampling periods."""
    steps = np.concatenate([_steps(one.times) for one in series]) if series else np.empty(0)
    forward = steps[steps > 0]
    return float(np.median(forward)) * GAP_PERIODS if len(forward) else 60.0


def cut(series: Series, length: int, max_gap_secs: float, keep: NDArray[np.bool_] | None = None) -> SeriesWindows:
    """Every window of the series whose rows are all kept (`keep` is a mask over its rows)."""
    usable = np.flatnonzero(np.isfinite(series.values).all(axis=1))
    if len(usable) < length:
        empty = np.empty(0, dtype=np.int64)
        return SeriesWindows(np.empty((0, length, series.values.shape[1])), empty, empty)
    breaks = _breaks(series.times[usable], max_gap_secs)
    # A window is whole when no break lies after its first row.
    whole = np.ones(len(usable) - length + 1, dtype=bool)
    if length > 1:
        whole &= ~sliding_window_view(breaks[1:], length - 1).any(axis=1)
    if keep is not None:
        whole &= sliding_window_view(keep[usable], length).all(axis=1)
    view = sliding_window_view(series.values[usable], length, axis=0).transpose(0, 2, 1)
    return SeriesWindows(view, np.flatnonzero(whole), usable[length - 1 :][whole])


def _steps(times: NDArray[np.int64]) -> Floats:
    known = times[times != NO_TIME]
    return np.asarray(np.diff(known) / 1e6, dtype=np.float64)


def _breaks(times: NDArray[np.int64], max_gap_secs: float) -> NDArray[np.bool_]:
    """True at each row that follows a gap, measured from the last row that had a time."""
    breaks = np.zeros(len(times), dtype=bool)
    known = np.flatnonzero(times != NO_TIME)
    breaks[known[1:]] = np.abs(np.diff(times[known])) > max_gap_secs * 1e6
    return breaks
