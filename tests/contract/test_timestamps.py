from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.timestamps import format_timestamp, parse_timestamp

NOON = 1_763_899_200_000_000  # 2025-11-23T12:00:00Z


@pytest.mark.parametrize(
    "value",
    [
        "2025-11-23T12:00:00Z",
        "2025-11-23T12:00:00+00:00",
        "2025-11-23T13:00:00+01:00",
        "2025-11-23 12:00:00",
        " 2025-11-23T12:00:00.000Z ",
        1_763_899_200,
        1_763_899_200.0,
        1_763_899_200_000,
        1_763_899_200_000_000,
        1_763_899_200_000_000_000,
    ],
)
def test_one_moment_is_read_from_every_usual_form(value: object) -> None:
    assert parse_timestamp(value) == NOON


@pytest.mark.parametrize(
    "value", [None, True, False, "", "noon", "2025-13-01", [], {}, float("nan"), float("inf"), 1e300]
)
def test_what_is_no_time_is_none(value: object) -> None:
    assert parse_timestamp(value) is None


def test_text_without_an_offset_is_utc() -> None:
    assert parse_timestamp("2013-12-02 21:15:00") == parse_timestamp("2013-12-02T21:15:00Z")


def test_whole_seconds_carry_no_decimals() -> None:
    assert format_timestamp(NOON) == "2025-11-23T12:00:00Z"
    assert format_timestamp(NOON + 1) == "2025-11-23T12:00:00.000001Z"
    assert format_timestamp(-1) == "1969-12-31T23:59:59.999999Z"


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_a_formatted_time_reads_back_exactly(moment: datetime) -> None:
    micros = parse_timestamp(moment.isoformat())
    assert micros is not None
    assert parse_timestamp(format_timestamp(micros)) == micros
