"""What a rule does to one value, text to text.

Values travel as the sender's own JSON text, so that `1.10` stays `1.10` and no number passes through a float.
"""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final, TypeAlias

Action: TypeAlias = Callable[[bytes], bytes | None]

_FIRST_OF_NUMBER: Final = frozenset(b"-0123456789")
# The longest result has 309 digits before the point and 12 behind it.
_CONTEXT: Final = Context(prec=330, rounding=ROUND_HALF_EVEN)
# Beyond the largest double a number is no measurement, and its plain digits could fill the memory ("1e999999999").
_LARGEST_EXPONENT: Final = 308


def is_number(text: bytes) -> bool:
    """Whether this JSON value is a number; the text is known to be JSON."""
    return text[0] in _FIRST_OF_NUMBER


def keep(text: bytes) -> bytes | None:
    return text


class Round:
    """To `decimals` decimals, half to even, computed exactly on the digits as written.

    The result always has exactly that many decimals (none and no point for 0 or fewer), never an exponent and never
    a negative zero, so that it says nothing about how the sender wrote the number. What is no number, or has a
    magnitude of 1e309 or more, is dropped.
    """

    def __init__(self, decimals: int) -> None:
        self.decimals = decimals
        self._unit = Decimal(1).scaleb(-decimals)

    def __call__(self, text: bytes) -> bytes | None:
        if text[0] not in _FIRST_OF_NUMBER:
            return None
        try:
            number = Decimal(text.decode())
            if number and number.adjusted() > _LARGEST_EXPONENT:
                return None
            rounded = number.quantize(self._unit, context=_CONTEXT)
        except InvalidOperation:
            return None
        return f"{rounded if rounded else rounded.copy_abs():f}".encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Round) and other.decimals == self.decimals

    def __hash__(self) -> int:
        return hash(self.decimals)
