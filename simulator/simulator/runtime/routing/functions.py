"""The built-in functions of route conditions, by lower-case name.

A function of an undefined argument is undefined, except the `is_…` tests. Wrong static types are compile errors; a
body value of the wrong type makes the result undefined.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from simulator.runtime.routing.values import NULL, UNDEFINED, Kind, Value

# What .NET's NumberStyles.Any reads with the invariant culture: signs on either side, brackets, thousands, exponent.
_NUMBER = re.compile(r"(\()?\s*([+-]?)\s*((?:\d[\d,]*)?(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([+-]?)\s*(\))?")


@dataclass(frozen=True, slots=True)
class Function:
    """`accepts` holds one kind per argument (None: any kind); `optional` more may follow."""

    accepts: tuple[Kind | None, ...]
    result: Kind
    apply: Callable[..., Value]
    optional: tuple[Kind | None, ...] = ()
    is_variadic: bool = False
    takes_undefined: bool = False

    def fits(self, kinds: tuple[Kind, ...]) -> bool:
        if self.is_variadic:
            return len(kinds) >= len(self.accepts) and all(_fits(self.accepts[0], kind) for kind in kinds)
        wanted = (*self.accepts, *self.optional)
        return len(self.accepts) <= len(kinds) <= len(wanted) and all(map(_fits, wanted, kinds))

    def __call__(self, *arguments: Value) -> Value:
        if not self.takes_undefined and UNDEFINED in arguments:
            return UNDEFINED
        result = self.apply(*arguments)
        return UNDEFINED if isinstance(result, float) and math.isnan(result) else result


def _fits(wanted: Kind | None, kind: Kind) -> bool:
    return wanted is None or kind in (wanted, Kind.DYNAMIC)


def _numeric(work: Callable[..., float]) -> Callable[..., Value]:
    def apply(*arguments: Value) -> Value:
        if not all(_is_float(a) for a in arguments):
            return UNDEFINED
        try:
            return float(work(*arguments))
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return UNDEFINED

    return apply


def _is_float(value: Value) -> bool:
    return isinstance(value, float)


def _text(work: Callable[..., Value]) -> Callable[..., Value]:
    def apply(*arguments: Value) -> Value:
        return work(*arguments) if all(isinstance(a, str) for a in arguments) else UNDEFINED

    return apply


def _rounded(work: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: x if math.isinf(x) else float(work(x))


def _as_number(value: Value) -> Value:
    if isinstance(value, float):
        return value
    if not isinstance(value, str):
        return UNDEFINED
    text = value.strip()
    if text in ("Infinity", "-Infinity"):
        return math.inf if text[0] == "I" else -math.inf
    found = _NUMBER.fullmatch(text)
    if found is None or not any(c.isdigit() for c in found[3]) or found[3][0] in "eE":
        return UNDEFINED
    opening, before, digits, after, closing = found.groups()
    if bool(opening) != bool(closing) or (before and after):
        return UNDEFINED
    number = float(digits.replace(",", ""))
    return -number if opening or "-" in (before, after) else number


def _concat(*parts: Value) -> Value:
    texts = ["" if part is NULL else part for part in parts]
    return "".join(t for t in texts if isinstance(t, str)) if all(isinstance(t, str) for t in texts) else UNDEFINED


def _substring(text: Value, start: Value, length: Value | None = None) -> Value:
    if not isinstance(text, str) or not _is_float(start) or not (length is None or _is_float(length)):
        return UNDEFINED
    if math.isinf(float(start)) or (length is not None and math.isinf(float(length))):  # type: ignore[arg-type]
        return UNDEFINED
    first = int(start)  # type: ignore[arg-type]  # a float: checked above
    count = len(text) - first if length is None else int(length)  # type: ignore[arg-type]  # as above
    if first < 0 or count < 0 or first + count > len(text):
        return UNDEFINED
    return text[first : first + count]


def _is_finite(value: Value) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


_S, _N, _B = Kind.STRING, Kind.NUMBER, Kind.BOOL


def _test(apply: Callable[[Value], bool]) -> Function:
    return Function((None,), _B, apply, takes_undefined=True)


FUNCTIONS: dict[str, Function] = {
    "abs": Function((_N,), _N, _numeric(abs)),
    "exp": Function((_N,), _N, _numeric(math.exp)),
    "power": Function((_N, _N), _N, _numeric(math.pow)),
    "square": Function((_N,), _N, _numeric(lambda x: x * x)),
    "ceiling": Function((_N,), _N, _numeric(_rounded(math.ceil))),
    "floor": Function((_N,), _N, _numeric(_rounded(math.floor))),
    "sign": Function((_N,), _N, _numeric(_sign)),
    "sqrt": Function((_N,), _N, _numeric(math.sqrt)),
    "as_number": Function((None,), _N, _as_number),
    "is_bool": _test(lambda v: isinstance(v, bool)),
    "is_defined": _test(lambda v: v is not UNDEFINED),
    "is_null": _test(lambda v: v is NULL),
    "is_number": _test(_is_finite),
    "is_string": _test(lambda v: isinstance(v, str)),
    "concat": Function((_S, _S), _S, _concat, is_variadic=True),
    "length": Function((_S,), _N, _text(lambda s: float(len(s)))),
    "lower": Function((_S,), _S, _text(str.lower)),
    "upper": Function((_S,), _S, _text(str.upper)),
    "substring": Function((_S, _N), _S, _substring, optional=(_N,)),
    "index_of": Function((_S, _S), _N, _text(lambda s, part: float(s.find(part)))),
    "starts_with": Function((_S, _S), _B, _text(str.startswith)),
    "ends_with": Function((_S, _S), _B, _text(str.endswith)),
    "contains": Function((_S, _S), _B, _text(lambda s, part: part in s)),
}


def body_is_null(value: Value) -> bool:
    """`is_null` of a body query: true for every present value and for JSON null (edgeHub's mistake, kept)."""
    return value is not UNDEFINED
