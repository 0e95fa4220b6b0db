"""What a rule does to one value."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.transforms import Round


@pytest.mark.parametrize(
    ("text", "decimals", "expected"),
    [
        ("0.125", 2, "0.12"),
        ("0.135", 2, "0.14"),
        ("2.675", 2, "2.68"),  # a float would say 2.67
        ("72", 1, "72.0"),
        ("1.10", 1, "1.1"),
        ("-0.04", 1, "0.0"),
        ("-0", 0, "0"),
        ("1250", -2, "1200"),
        ("1350", -2, "1400"),
        ("1e3", 1, "1000.0"),
        ("1E-7", 3, "0.000"),
        ("0e999999", 1, "0.0"),
        ("1e-999999999", 1, "0.0"),
        ("123456789012345678901234567890.55", 1, "123456789012345678901234567890.6"),
    ],
)
def test_rounding_is_exact_on_the_digits_as_written(text: str, decimals: int, expected: str) -> None:
    assert Round(decimals)(text.encode()) == expected.encode()


@pytest.mark.parametrize("text", ['"1.5"', "true", "false", "null"])
def test_what_is_no_number_is_dropped(text: str) -> None:
    assert Round(1)(text.encode()) is None


@pytest.mark.parametrize("text", ["1e309", "-1e309", "1e999999999", "1e99999999999999999999", "9" * 400])
def test_a_number_beyond_every_measurement_is_dropped_and_fills_no_memory(text: str) -> None:
    assert Round(1)(text.encode()) is None


def test_a_text_of_a_hundred_thousand_digits_is_rounded() -> None:
    assert Round(2)(b"0." + b"3" * 100_000) == b"0.33"


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 12))
def test_rounding_is_nearest_and_says_nothing_about_how_the_number_was_written(value: float, decimals: int) -> None:
    plain, result = repr(value), Round(decimals)(repr(value).encode())
    assert result is not None
    with localcontext(prec=800):
        assert abs(Decimal(result.decode()) - Decimal(plain)) * 2 <= Decimal(1).scaleb(-decimals)
        other = f"{Decimal(plain):f}0" if "." in f"{Decimal(plain):f}" else f"{Decimal(plain):f}.000"
    assert Round(decimals)(other.encode()) == result
    assert float(msgspec.json.decode(result)) == float(result)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20), st.integers(-9, 12))
def test_rounding_equals_pythons_own_of_decimals(value: Decimal, decimals: int) -> None:
    with localcontext(prec=100, rounding=ROUND_HALF_EVEN):
        expected = round(value, decimals)
    result = Round(decimals)(f"{value:f}".encode())
    assert result is not None
    assert Decimal(result.decode()) == expected
