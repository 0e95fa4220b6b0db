"""Insights: aggregates over tumbling windows of one series. Pure.

A window is [start, end) by the rows' own timestamps, aligned to 1970-01-01T00:00:00Z. It closes when the newest row of
its series is `lateness_secs` past its end, or when the shell closes it (`close_all`).

Each row is counted once: in the window of its time (`rows`); as a late row, when that window is closed already; or as
an untimed row, when it has no readable time. Late and untimed rows are not aggregated; their number goes with the next
window of the series that closes.

One row from the far future (a broken clock) closes everything before it and would make all later rows late. So after
20 late rows with none in time between them, the series' clock is taken as corrected and its time starts anew; windows
of a time that had its window already may then appear a second time.

Values are those after the policy's transform. A field whose transform has changed since the window opened starts its
aggregate anew, and one that the policy no longer lets out is left away when the window closes.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from anomaly_router.sums import Aggregate
from policy import LARGEST_AGGREGATED

CORRECTED_CLOCK_AFTER_ROWS = 20
SCORE_TREATMENT = "score"


class Rules(NamedTuple):
    window_secs: int
    lateness_secs: float


class Sample(NamedTuple):
    """What the windows see of a row: values as (name, treatment, number)."""

    micros: int | None
    score: float | None
    anomaly: bool
    values: Iterable[tuple[str, str, float]]


class Window(msgspec.Struct):
    start: int  # microseconds
    end: int
    rows: int = 0
    anomalies: int = 0
    unscored: int = 0
    score: Aggregate | None = None
    fields: dict[str, Aggregate] = {}


class Closing(NamedTuple):
    """A window that is complete, with the rows that came since the one before and belong to no window."""

    window: Window
    late_rows: int
    untimed_rows: int


class Timeline(msgspec.Struct):
    """One series' windows. Bounded: `lateness / window + 2` windows can be open at once."""

    windows: list[Window] = []  # by start
    closed_until: int | None = None
    newest: int | None = None
    late_rows: int = 0
    untimed_rows: int = 0
    late_in_a_row: int = 0


def place(timeline: Timeline, row: Sample, rules: Rules) -> list[Closing]:
    """Count the row; the windows that closed, oldest first."""
    if row.micros is None:
        timeline.untimed_rows += 1
        return []
    width = rules.window_secs * 1_000_000
    closings = close_all(timeline) if any(window.end - window.start != width for window in timeline.windows) else []
    start = row.micros - row.micros % width
    if _is_late(timeline, start + width):
        timeline.late_in_a_row += 1
        if timeline.late_in_a_row <= CORRECTED_CLOCK_AFTER_ROWS:
            timeline.late_rows += 1
            return closings
        closings += close_all(timeline)
        timeline.closed_until = timeline.newest = None
    timeline.late_in_a_row = 0
    timeline.newest = row.micros if timeline.newest is None else max(timeline.newest, row.micros)
    _add(_window(timeline, start, start + width), row)
    closings += _close_until(timeline, timeline.newest - round(rules.lateness_secs * 1_000_000))
    return closings


def close_all(timeline: Timeline) -> list[Closing]:
    """Close every open window, oldest first."""
    return _close_until(timeline, timeline.windows[-1].end) if timeline.windows else []


def _is_late(timeline: Timeline, end: int) -> bool:
    return timeline.closed_until is not None and end <= timeline.closed_until


def _window(timeline: Timeline, start: int, end: int) -> Window:
    for window in reversed(timeline.windows):
        if window.start == start:
            return window
    window = Window(start, end)
    timeline.windows.append(window)
    timeline.windows.sort(key=lambda each: each.start)
    return window


def _add(window: Window, row: Sample) -> None:
    window.rows += 1
    window.anomalies += row.anomaly
    if row.score is None:
        window.unscored += 1
    elif abs(row.score) <= LARGEST_AGGREGATED:
        if window.score is None:
            window.score = Aggregate(SCORE_TREATMENT)
        window.score.add(row.score)
    for name, treatment, value in row.values:
        aggregate = window.fields.get(name)
        if aggregate is None or aggregate.treatment != treatment:
            aggregate = window.fields[name] = Aggregate(treatment)
        aggregate.add(value)


def _close_until(timeline: Timeline, watermark: int) -> list[Closing]:
    closings = []
    while timeline.windows and timeline.windows[0].end <= watermark:
        window = timeline.windows.pop(0)
        closings.append(Closing(window, timeline.late_rows, timeline.untimed_rows))
        timeline.late_rows = timeline.untimed_rows = 0
        timeline.closed_until = window.end if timeline.closed_until is None else max(timeline.closed_until, window.end)
    return closings
