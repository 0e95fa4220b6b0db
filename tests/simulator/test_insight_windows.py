from collections import Counter
from typing import Any

import pytest

from simulator.insight_windows import second_of, window_problems
from simulator.stored import Number

ROWS = {("d", "s"): Counter[int | None]({0: 3, 3: 1, 4: 2, None: 1})}


def window(start: int, rows: int, **more: int) -> dict[str, Any]:
    times = {"t": f"1970-01-01T00:00:0{start}Z", "end": f"1970-01-01T00:00:0{start + 4}Z"}
    counts = {name: Number(count) for name, count in {"rows": rows, **more}.items()}
    return {"device": "d", "series": "s", **times, **counts}


@pytest.mark.parametrize(
    "windows",
    [
        [window(0, 4), window(4, 2, untimed_rows=1)],
        [window(0, 3), window(4, 2, late_rows=1, untimed_rows=1)],
        [{"device": "d", "series": "s", "rows": Number(7)}],  # the policy keeps the times
    ],
)
def test_rows_that_are_counted_once_are_fine(windows: list[dict[str, Any]]) -> None:
    assert window_problems(ROWS, windows, all_closed=True) == []
    assert window_problems(ROWS, windows[:1], all_closed=False) == []


@pytest.mark.parametrize(
    ("windows", "problem"),
    [
        ([window(0, 4), window(0, 1)], "the window of 1970-01-01T00:00:00Z is there 2 times"),
        ([window(0, 5)], "the window of 1970-01-01T00:00:00Z counts 5 rows, there are 4"),
        ([window(0, 4), window(4, 2, late_rows=2)], "insights count 8 rows, there are 7"),
    ],
)
def test_rows_that_are_counted_twice_are_found_while_windows_are_open(
    windows: list[dict[str, Any]], problem: str
) -> None:
    assert window_problems(ROWS, windows, all_closed=False) == [f"d series s: {problem}"]


def test_what_is_not_counted_is_found_when_all_windows_are_closed() -> None:
    assert window_problems(ROWS, [window(0, 4)], all_closed=False) == []
    assert window_problems(ROWS, [window(0, 4)], all_closed=True) == ["d series s: insights count 4 rows, there are 7"]
    assert window_problems({}, [window(0, 4)], all_closed=False) == ["d series s: insights count 4 rows, there are 0"]


def test_a_window_may_come_twice_when_the_clock_was_corrected() -> None:
    rows = {("d", "s"): Counter[int | None]({0: 40})}
    assert window_problems(rows, [window(0, 10), window(0, 10, late_rows=20)], all_closed=True) == []
    assert window_problems(rows, [window(0, 11), window(0, 10, late_rows=19)], all_closed=True) != []


def test_a_time_lies_in_its_second() -> None:
    assert [second_of(t) for t in ("1970-01-01T00:00:07.900000Z", None, "x")] == [7, None, None]
