"""Values and static types of route conditions, and how values compare.

At run time a value is a bool, a float (NaN never: it counts as undefined), a str, NULL or UNDEFINED. What a property
is known to be when the route is compiled is its `Kind`; a body query is DYNAMIC and is judged when it is evaluated.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final


class Marker(Enum):
    UNDEFINED = auto()
    NULL = auto()


UNDEFINED: Final = Marker.UNDEFINED
NULL: Final = Marker.NULL

Value = bool | float | str | Marker


class Kind(Enum):
    BOOL = "bool"
    NUMBER = "number"
    STRING = "string"
    NULL = "null"
    UNDEFINED = "undefined"
    DYNAMIC = "body value"


_COMPARISONS: dict[str, Callable[[int], bool]] = {
    "=": lambda sign: sign == 0,
    "!=": lambda sign: sign != 0,
    "<>": lambda sign: sign != 0,
    "<": lambda sign: sign < 0,
    "<=": lambda sign: sign <= 0,
    ">": lambda sign: sign > 0,
    ">=": lambda sign: sign >= 0,
}


def compare(symbol: str, left: Value, right: Value, *, is_dynamic: bool) -> Value:
    """A bool, or UNDEFINED.

    Of two static operands a null string makes the comparison undefined; dynamic ones order across types
    (bool < number < string < null), which makes a missing body path greater than every number.
    """
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    if not is_dynamic and (left is NULL) != (right is NULL):
        return UNDEFINED
    return _COMPARISONS[symbol](_sign(left, right))


def _sign(left: Value, right: Value) -> int:
    ranks = _rank(left), _rank(right)
    if ranks[0] != ranks[1]:
        return -1 if ranks[0] < ranks[1] else 1
    if left is NULL:
        return 0
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    if isinstance(left, float) and isinstance(right, float):  # a bool is ranked apart
        return (left > right) - (left < right)
    return int(left is True) - int(right is True)


def _rank(value: Value) -> int:
    match value:
        case bool():
            return 0
        case float():
            return 1
        case str():
            return 2
        case _:
            return 3


def conjunction(left: Value, right: Value) -> Value:
    """Three-valued AND; false decides, whatever the other side is."""
    if left is False or right is False:
        return False
    return True if left is True and right is True else UNDEFINED


def disjunction(left: Value, right: Value) -> Value:
    """Three-valued OR; true decides."""
    if left is True or right is True:
        return True
    return False if left is False and right is False else UNDEFINED


def negation(value: Value) -> Value:
    if value is NULL:
        return True
    return (not value) if isinstance(value, bool) else UNDEFINED
