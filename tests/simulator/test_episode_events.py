from typing import Any

import pytest

from simulator.episode_events import episode_problems, misplaced_events
from simulator.stored import LaneRows, Number

Event = dict[str, Any]


def event(kind: str, total: int, rows: int = 0, episode: str = "e", device: str = "d", series: str = "s") -> Event:
    inner = [{"device": device, "series": series, "message": "m", "i": Number(row)} for row in range(rows)]
    more = {"rows": inner} if inner else {}
    return {
        "kind": kind,
        "episode": episode,
        "rows_total": Number(total),
        "device": device,
        "series": series,
        "t": "",
        **more,
    }


OPENED, UPDATED, CLOSED = event("opened", 2, 2), event("updated", 3, 1), event("closed", 3)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [OPENED],
        [OPENED, UPDATED],
        [OPENED, UPDATED, CLOSED],
        [CLOSED, UPDATED, OPENED],  # where they stand is another question
        [OPENED, UPDATED, CLOSED, event("opened", 1, 1, "f")],
        [OPENED, event("opened", 1, 1, "f", series="r"), event("opened", 1, 1, "g", device="c")],
        [{"kind": "opened", "episode": "e", "rows_total": Number(1), "rows": [{}]}],  # a policy that names nobody
    ],
)
def test_whole_lives_are_fine(events: list[Event]) -> None:
    assert episode_problems(events) == []


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([UPDATED, CLOSED], "begins with updated"),
        ([CLOSED], "begins with closed"),
        ([OPENED, OPENED], "is opened 2 times"),
        ([OPENED, event("opened", 2)], "is opened with 0 rows"),
        ([OPENED, UPDATED, UPDATED], "counts '3' rows when there are 4"),
        ([OPENED, CLOSED], "counts '3' rows when there are 2"),
        ([OPENED, UPDATED, CLOSED, CLOSED], "is closed 2 times"),
        ([OPENED, event("closed", 2), event("updated", 3, 1)], "goes on after it is closed"),
        ([OPENED, event("closed", 3, 1)], "is closed with 1 rows"),
        ([OPENED, event("ended", 2)], "events of the kind ended"),
        ([{**OPENED, "rows_total": "2"}], "counts '2' rows"),
        ([OPENED, event("updated", 3, 1, series="r")], "more than one series: r, s"),
        ([{**OPENED, "device": "c"}], "more than one device: c, d"),
        ([OPENED, event("opened", 1, 1, "f")], "open are the episodes e, f"),
    ],
)
def test_what_is_no_whole_life_is_found(events: list[Event], problem: str) -> None:
    assert any(problem in found for found in episode_problems(events)), episode_problems(events)


def test_an_episode_may_be_open_unless_all_must_be_closed() -> None:
    assert episode_problems([OPENED, UPDATED]) == []
    assert episode_problems([OPENED, UPDATED], all_closed=True) == ["d series s: open are the episodes e"]
    assert episode_problems([OPENED, UPDATED, CLOSED], all_closed=True) == []


def placed(*events: tuple[str, Event]) -> list[LaneRows]:
    return [LaneRows("anomalies", "0a", list(events))]


def test_an_event_stands_after_the_one_it_follows_except_across_hours() -> None:
    assert misplaced_events(placed(("1", OPENED), ("1", UPDATED), ("2", CLOSED))) == []
    assert misplaced_events(placed(("1", UPDATED), ("2", OPENED), ("2", CLOSED))) == []
    (problem,) = misplaced_events(placed(("1", OPENED), ("1", CLOSED), ("1", UPDATED)))
    assert problem == "episode e: closed of 3 rows is stored before updated of 3"
    assert len(misplaced_events(placed(("2", UPDATED), ("1", OPENED)))) == 1


def test_two_spools_say_nothing_of_each_other() -> None:
    assert misplaced_events([*placed(("1", UPDATED)), *placed(("1", OPENED))]) == []
