from typing import Any

import pytest

from simulator.detection import Episode, collect_episodes, score_faults
from simulator.faults import Fault, FaultKind
from simulator.oracle import Expected, ExpectedRow, RowId
from simulator.stored import Number


def test_episodes_are_collected_over_their_events_and_per_device() -> None:
    expected = Expected()
    for device, index in (("d", 2), ("d", 3), ("e", 7)):
        expected.rows[RowId(device, "1", index)] = ExpectedRow("m", index, {}, 9.0, None, True)

    def row(device: str, index: int) -> dict[str, object]:
        return {"device": device, "message": "1", "i": Number(index)}

    events: list[dict[str, Any]] = [
        {"episode": "e1", "kind": "opened", "rows": [row("d", 2)]},
        {"episode": "e2", "kind": "opened", "rows": [row("e", 7)]},
        {"episode": "e1", "kind": "updated", "rows": [row("d", 3)]},
        {"episode": "e1", "kind": "closed"},
    ]
    assert collect_episodes(expected, events) == [
        Episode("e1", "m", frozenset({2, 3})),
        Episode("e2", "m", frozenset({7})),
    ]


FAULTS = [Fault("m", "spike", "flow", 10, 11), Fault("m", "stuck", "flow", 50, 90), Fault("n", "drift", "flow", 10, 60)]


def test_a_fault_is_found_by_an_episode_that_touches_it_or_its_wake() -> None:
    episodes = [Episode("a", "m", frozenset({13, 14})), Episode("b", "n", frozenset({12}))]
    score = score_faults(FAULTS, episodes, window_rows=4)
    assert score.found == {"spike": 1, "drift": 1}
    assert score.judged == (1, 2)
    assert not score.false_episodes
    assert not score.good_enough


def test_rows_out_of_every_faults_reach_are_false_also_in_an_episode_that_found_something() -> None:
    episodes = [
        Episode("a", "m", frozenset({10, 11, 14, 15})),
        Episode("b", "m", frozenset({50, 60})),
        Episode("c", "n", frozenset({1})),
        Episode("d", "n", frozenset({3, 5})),
    ]
    score = score_faults(FAULTS, episodes, window_rows=4)
    assert score.judged == (2, 2)
    assert score.false_episodes == {"m": 1, "n": 3}
    assert not score.good_enough
    assert score_faults(FAULTS, episodes[:3], window_rows=4).good_enough


def test_a_long_false_alarm_counts_once_for_every_window_it_lasts() -> None:
    for rows, times in ((4, 1), (5, 2), (9, 3)):
        score = score_faults(FAULTS, [Episode("a", "m", frozenset(range(100, 100 + rows)))], window_rows=4)
        assert score.false_episodes == {"m": times}


def test_an_episode_finds_only_the_first_fault_that_it_touches() -> None:
    endless = [Episode("a", "m", frozenset({10, 11, 12, *range(50, 90)}))]
    assert score_faults(FAULTS, endless, window_rows=4).judged == (1, 2)


KINDS: tuple[FaultKind, ...] = ("spike", "level_shift", "stuck", "dropout", "spike", "stuck")
SIX = [Fault("p", kind, "flow", first, first + 2) for kind, first in zip(KINDS, range(50, 410, 60), strict=True)]


@pytest.mark.parametrize(
    "episodes",
    [
        [frozenset(range(16, 500))],
        [frozenset(range(first, first + 10)) for first in range(16, 500, 10)],
        [frozenset(range(16, 500, 7))],
        [frozenset(row for fault in SIX for row in range(fault.first, fault.last + 1))],
    ],
    ids=["every_row_in_one_episode", "every_row_in_many", "every_seventh_row", "right_rows_but_never_closed"],
)
def test_a_useless_detector_does_not_pass(episodes: list[frozenset[int]]) -> None:
    score = score_faults(SIX, [Episode(str(n), "p", rows) for n, rows in enumerate(episodes)], window_rows=16)
    assert not score.good_enough


def test_a_detector_that_tells_every_fault_passes() -> None:
    episodes = [Episode(str(n), "p", frozenset(range(fault.first, fault.last + 16))) for n, fault in enumerate(SIX)]
    score = score_faults(SIX, episodes, window_rows=16)
    assert score.judged == (6, 6)
    assert score.good_enough
