"""Windows and their sums."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_router.insights import CORRECTED_CLOCK_AFTER_ROWS, Closing, Rules, Sample, Timeline, close_all, place
from anomaly_router.sums import Aggregate

RULES = Rules(window_secs=60, lateness_secs=10)
SECOND = 1_000_000


def at(secs: float | None, value: float = 1.0, *, anomaly: bool = False, score: float | None = 0.5) -> Sample:
    return Sample(None if secs is None else round(secs * SECOND), score, anomaly, [("v", "keep", value)])


def starts(closings: list[Closing]) -> list[int]:
    return [closing.window.start // SECOND for closing in closings]


def test_a_window_closes_when_the_newest_row_is_past_its_end_by_the_lateness() -> None:
    timeline = Timeline()
    assert place(timeline, at(59), RULES) == []
    assert place(timeline, at(69.9), RULES) == []
    assert place(timeline, at(58), RULES) == []  # late, but its window still waits
    (closing,) = place(timeline, at(70), RULES)
    assert (closing.window.start, closing.window.end, closing.window.rows) == (0, 60 * SECOND, 2)


def test_a_row_that_is_too_late_goes_with_the_next_window_as_a_number() -> None:
    timeline = Timeline()
    place(timeline, at(0), RULES)
    place(timeline, at(100), RULES)
    assert place(timeline, at(30), RULES) == []
    assert place(timeline, at(None), RULES) == []
    (closing,) = place(timeline, at(130), RULES)
    assert (closing.window.start, closing.window.rows) == (60 * SECOND, 1)
    assert (closing.late_rows, closing.untimed_rows) == (1, 1)


def test_a_window_that_nothing_was_sent_for_is_not_late_before_it_was_closed() -> None:
    timeline = Timeline()
    place(timeline, at(0), RULES)
    assert starts(place(timeline, at(600), RULES)) == [0]
    assert starts(place(timeline, at(300), RULES)) == [300]
    assert place(timeline, at(301), RULES) == []
    assert timeline.late_rows == 1


def test_one_row_from_the_far_future_does_not_silence_a_series_for_ever() -> None:
    timeline = Timeline()
    place(timeline, at(4e9), RULES)
    close_all(timeline)
    seen = [place(timeline, at(secs), RULES) for secs in range(200)]
    assert timeline.late_rows == 0
    closings = [closing for closed in seen for closing in closed]
    assert starts(closings) == [0, 60, 120]
    assert [closing.late_rows for closing in closings] == [CORRECTED_CLOCK_AFTER_ROWS, 0, 0]
    assert sum(closing.window.rows for closing in closings) == 180 - CORRECTED_CLOCK_AFTER_ROWS


def test_late_rows_between_rows_in_time_correct_no_clock() -> None:
    timeline = Timeline()
    place(timeline, at(1000), RULES)
    place(timeline, at(2000), RULES)
    for _ in range(2 * CORRECTED_CLOCK_AFTER_ROWS):
        assert place(timeline, at(1000), RULES) == []
        assert place(timeline, at(2000), RULES) == []
    assert timeline.late_rows == 2 * CORRECTED_CLOCK_AFTER_ROWS


def test_another_window_length_closes_the_open_windows_of_the_old_one() -> None:
    timeline = Timeline()
    place(timeline, at(5), RULES)
    assert starts(place(timeline, at(6), Rules(30, 10))) == [0]
    assert starts(close_all(timeline)) == []
    assert timeline.late_rows == 1


def test_a_field_whose_transform_changed_starts_its_aggregate_anew() -> None:
    timeline = Timeline()
    place(timeline, Sample(0, None, False, [("v", "keep", 5.0), ("w", "keep", 1.0)]), RULES)
    place(timeline, Sample(0, None, False, [("v", "round:0", 7.0)]), RULES)
    fields = close_all(timeline)[0].window.fields
    assert (fields["v"].treatment, fields["v"].count, fields["v"].max) == ("round:0", 1, 7.0)
    assert fields["w"].treatment == "keep"


@given(
    st.lists(st.tuples(st.none() | st.integers(-1000, 1000), st.booleans(), st.booleans()), max_size=80),
    st.integers(1, 90),
    st.integers(0, 90),
    st.integers(0, 20),
)
def test_every_row_is_counted_once_and_restoring_the_state_changes_nothing(
    rows: list[tuple[int | None, bool, bool]], width: int, lateness: int, restore_every: int
) -> None:
    timeline, closings = Timeline(), []
    for n, (secs, anomaly, scored) in enumerate(rows):
        if restore_every and n % restore_every == 0:
            timeline = msgspec.msgpack.decode(msgspec.msgpack.encode(timeline), type=Timeline)
        closings += place(timeline, at(secs, anomaly=anomaly, score=0.5 if scored else None), Rules(width, lateness))
        assert len(timeline.windows) <= lateness // width + 2
    closings += close_all(timeline)
    windows = [closing.window for closing in closings]
    late = sum(closing.late_rows for closing in closings) + timeline.late_rows
    untimed = sum(closing.untimed_rows for closing in closings) + timeline.untimed_rows
    assert sum(window.rows for window in windows) + late + untimed == len(rows)
    assert untimed == sum(secs is None for secs, _, _ in rows)
    for window in windows:
        counted = window.score.count if window.score else 0
        assert (window.rows, window.fields["v"].count) == (counted + window.unscored, window.rows)


_numbers = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30)


@given(_numbers, st.randoms(use_true_random=False))
def test_a_mean_is_exact_whatever_the_order_and_lies_between_the_extremes(values: list[float], random: object) -> None:
    exact = float(sum(map(Fraction, values)) / len(values))
    shuffled = sorted(values)
    for order in (values, shuffled, shuffled[::-1]):
        aggregate = Aggregate("keep")
        for value in order:
            aggregate.add(value)
            aggregate = msgspec.msgpack.decode(msgspec.msgpack.encode(aggregate), type=Aggregate)
        assert (aggregate.count, aggregate.min, aggregate.max) == (len(values), min(values), max(values))
        assert aggregate.mean == exact
        assert aggregate.min <= aggregate.mean <= aggregate.max


@pytest.mark.parametrize("values", [[7.1] * 3, [0.1] * 10, [1e300, -1e300, 1.0], [1e16, 1.0, -1e16]])
def test_sums_that_lose_digits_in_floats_do_not_here(values: list[float]) -> None:
    aggregate = Aggregate("keep")
    for value in values:
        aggregate.add(value)
    assert aggregate.mean == float(sum(map(Fraction, values)) / len(values))
