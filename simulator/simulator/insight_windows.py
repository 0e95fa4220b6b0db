"""Whether insight windows count the rows that are there. Pure.

Each row of a series is counted once: in the window of its time, as late, or as untimed. So a window never counts more
rows than have their time in it, all windows together never more than there are, and in the end just as many. No window
comes twice, but of a series whose clock was corrected: 20 late rows in a row let its time start anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from contract.timestamps import parse_timestamp

Series = tuple[str, str]
# Per series, a device's, how many rows lie in each second; None counts those without a time.
RowTimes = Mapping[Series, Counter[int | None]]
Window = Mapping[str, Any]
_CORRECTED_CLOCK_AFTER_ROWS: Final = 20
_COUNTS: Final = ("rows", "late_rows", "untimed_rows")


def second_of(t: object) -> int | None:
    micros = parse_timestamp(t)
    return None if micros is None else micros // 1_000_000


def window_problems(rows: RowTimes, windows: Iterable[Window], *, all_closed: bool) -> list[str]:
    """A line for each series that is counted wrongly; when all windows are closed, also for what is not counted.

    A series without a row that has a time never has a window, so nothing tells of it.
    """
    found: dict[Series, list[Window]] = {}
    for window in windows:
        found.setdefault((str(window.get("device")), str(window.get("series"))), []).append(window)
    timed = {series for series, times in rows.items() if any(second is not None for second in times)}
    problems = []
    for series in sorted(timed | found.keys()):
        problem = _series_problem(rows.get(series, Counter()), found.get(series, []), all_closed)
        if problem:
            problems.append(f"{series[0]} series {series[1]}: {problem}")
    return problems


def _series_problem(times: Counter[int | None], windows: list[Window], all_closed: bool) -> str:
    counted, there = sum(_count(window, *_COUNTS) for window in windows), times.total()
    if counted > there or (all_closed and counted < there):
        return f"insights count {counted} rows, there are {there}"
    if sum(_count(window, "late_rows") for window in windows) < _CORRECTED_CLOCK_AFTER_ROWS:
        for start, stored in Counter(window["t"] for window in windows if "t" in window).items():
            if stored > 1:
                return f"the window of {start} is there {stored} times"
    for window in windows:
        start, end = second_of(window.get("t")), second_of(window.get("end"))
        if start is None or end is None:
            continue  # the policy keeps the times
        inside = sum(times[second] for second in range(start, end))
        if _count(window, "rows") > inside:
            return f"the window of {window['t']} counts {_count(window, 'rows')} rows, there are {inside}"
    return ""


def _count(window: Window, *names: str) -> int:
    return sum(int(window.get(name, 0)) for name in names)
