"""What is told of in more than one cell: episodes that close late, and insight windows. Pure.

Both go on after their cell: an episode of one cell may be closed in the next, and a window closes by later rows or by
idle running time. So what is found of them is kept over the site's life, of each event and row only what counts here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.episode_events import episode_problems, misplaced_events
from simulator.insight_windows import Series, second_of, window_problems
from simulator.stored import Batch, Storage

Row = Mapping[str, Any]
_OF_AN_EVENT: Final = ("kind", "episode", "rows_total", "device", "series")
_OF_A_WINDOW: Final = ("device", "series", "t", "end", "rows", "late_rows", "untimed_rows")


class SiteLife:
    def __init__(self) -> None:
        self._anomalies = Storage()
        self._rows: dict[Series, Counter[int | None]] = {}
        self._windows: list[Row] = []

    def add(self, batch: Batch, rows: Sequence[Row]) -> None:
        """A batch of any lane, whole."""
        match batch.name.lane:
            case "readings":
                for row in rows:
                    series = str(row.get("device")), str(row.get("series"))
                    self._rows.setdefault(series, Counter())[second_of(row.get("t"))] += 1
            case "anomalies":
                self._anomalies.batches.append(batch)
                self._anomalies.rows.append([_event(row) for row in rows])
            case "insights":
                self._windows += [_part(row, _OF_A_WINDOW) for row in rows]

    def problems(self, *, at_end: bool = False) -> list[str]:
        """A line each. `at_end` every episode and every window must be closed."""
        return [
            *episode_problems(self._anomalies.lane("anomalies"), all_closed=at_end),
            *misplaced_events(self._anomalies.sequences("anomalies")),
            *window_problems(self._rows, self._windows, all_closed=at_end),
        ]


def _event(row: Row) -> dict[str, Any]:
    inner = [_part(one, ("device", "series")) for one in row.get("rows", ())]
    return {**_part(row, _OF_AN_EVENT), **({"rows": inner} if inner else {})}


def _part(row: Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}
