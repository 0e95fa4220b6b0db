"""A made-up run is a site's whole life; what is spoiled in it is found, also what a cell is not judged by."""

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.chaos.site_life import SiteLife
from tests.simulator.spoils import SPOILS
from tests.simulator.true_run import TrueRun, make_run, stored

SEEDS = st.integers(0, 2**32)


def problems_of(run: TrueRun, *, at_end: bool) -> list[str]:
    life, storage = SiteLife(), stored(run.pieces)
    for batch, rows in zip(storage.batches, storage.rows, strict=True):
        life.add(batch, rows)
    return life.problems(at_end=at_end)


def is_open(run: TrueRun) -> bool:
    kinds = [row["kind"] for piece in run.of("anomalies") for row in piece.rows]
    return kinds.count("opened") > kinds.count("closed")


@given(SEEDS)
@settings(max_examples=10)
def test_a_site_on_which_nothing_went_wrong_has_no_problems_but_what_is_open_at_its_end(seed: int) -> None:
    run = make_run(Random(seed))
    assert problems_of(run, at_end=False) == []
    assert all("open are the episodes" in problem for problem in problems_of(run, at_end=True))
    assert bool(problems_of(run, at_end=True)) == is_open(run)


@pytest.mark.parametrize(
    ("name", "at_end"),
    [
        ("an_episode_is_closed_twice", False),
        ("an_episode_is_opened_twice_the_second_time_without_rows", False),
        ("an_end_is_lost_and_the_series_has_another_episode", False),
        ("an_event_counts_another_number_of_rows", False),
        ("an_event_is_stored_before_the_one_it_follows", False),
        ("a_window_is_stored_twice", False),
        ("a_window_comes_in_two_halves", False),
        ("a_window_is_lost", True),
    ],
)
@given(SEEDS)
@settings(max_examples=4)
def test_what_is_spoiled_is_found(name: str, at_end: bool, seed: int) -> None:
    _, spoil = SPOILS[name]
    run = make_run(Random(seed))
    before = problems_of(run, at_end=at_end)
    assume(spoil(run, Random(seed)))
    assert set(problems_of(run, at_end=at_end)) - set(before)


def test_an_end_that_is_lost_shows_at_the_end() -> None:
    run = make_run(Random(1))
    for piece in run.of("anomalies"):
        piece.rows = [event for event in piece.rows if event["kind"] != "closed"]
    assert any("open are the episodes" in problem for problem in problems_of(run, at_end=True))
