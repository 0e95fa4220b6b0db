"""Compiles the tree of a WHERE condition into one closure, checking static types as edgeHub does."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lark import Token, Tree

from simulator.runtime.routing.errors import RouteCompileError
from simulator.runtime.routing.functions import FUNCTIONS, body_is_null
from simulator.runtime.routing.parser import Node, unescape
from simulator.runtime.routing.subject import Subject, parse_path
from simulator.runtime.routing.values import (
    NULL,
    UNDEFINED,
    Kind,
    Value,
    compare,
    conjunction,
    disjunction,
    negation,
)

Evaluate = Callable[[Subject], Value]
Condition = Callable[[Subject], bool]

_BODY_PREFIX = "$body."
_LOGICAL = (Kind.BOOL, Kind.NULL, Kind.UNDEFINED)


@dataclass(frozen=True, slots=True)
class Term:
    """An expression: what it is known to be, and how to find its value."""

    kind: Kind
    evaluate: Evaluate


def compile_condition(tree: Node) -> Condition:
    """A predicate that holds only when the condition is exactly true. Raises RouteCompileError."""
    evaluate = _term(tree).evaluate
    return lambda subject: evaluate(subject) is True


def _term(node: Node | Token) -> Term:
    assert isinstance(node, Tree)  # every alternative of the grammar's expressions is named
    return _COMPILERS[str(node.data)](node)


def _constant(kind: Kind, value: Value) -> Term:
    return Term(kind, lambda _: value)


def _number(node: Node) -> Term:
    return _constant(Kind.NUMBER, float(str(node.children[0])))


def _hex_number(node: Node) -> Term:
    return _constant(Kind.NUMBER, float(int(str(node.children[0]), 16)))


def _string(node: Node) -> Term:
    return _constant(Kind.STRING, unescape(str(node.children[0])))


# --- names -----------------------------------------------------------------------------------------------------------


def _property(node: Node) -> Term:
    name = str(node.children[0]).lower()
    return Term(Kind.STRING, lambda subject: subject.app(name))


def _dollar_property(node: Node) -> Term:
    """`$x`: an application property of that very name, else a body query, else a system property."""
    name = str(node.children[0])
    other = _system_or_body(name)
    if "[" in name or "]" in name:
        return other
    lower, fallback = name.lower(), other.evaluate
    return Term(other.kind, lambda subject: subject.app(lower) if subject.has_app(lower) else fallback(subject))


def _escaped_property(node: Node) -> Term:
    """`{$x}`: never an application property."""
    return _system_or_body(str(node.children[1]))


def _system_or_body(name: str) -> Term:
    if name.lower().startswith(_BODY_PREFIX):
        path = parse_path(name[len(_BODY_PREFIX) :])
        if path is None:
            raise RouteCompileError(f"{name!r} is no path into a body")
        return Term(Kind.DYNAMIC, lambda subject: subject.body(path))
    if "[" in name or "]" in name:
        return _constant(Kind.UNDEFINED, UNDEFINED)
    lower = name[1:].lower()
    return Term(Kind.STRING, lambda subject: subject.system(lower))


# --- operators -------------------------------------------------------------------------------------------------------


def _nested(node: Node) -> Term:
    return _term(node.children[1])


def _sides(node: Node) -> tuple[Term, str, Term]:
    left, symbol, right = node.children
    return _term(left), str(symbol), _term(right)


def _mismatch(symbol: str, *terms: Term) -> RouteCompileError:
    kinds = " and ".join(term.kind.value for term in terms)
    return RouteCompileError(f"operator {symbol!r} does not take {kinds}")


def _alike(left: Term, right: Term) -> bool:
    return left.kind is right.kind or Kind.DYNAMIC in (left.kind, right.kind)


def _compare(node: Node) -> Term:
    left, symbol, right = _sides(node)
    if not _alike(left, right):
        raise _mismatch(symbol, left, right)
    a, b, is_dynamic = left.evaluate, right.evaluate, Kind.DYNAMIC in (left.kind, right.kind)
    if left.kind is right.kind is Kind.STRING:
        return Term(Kind.BOOL, lambda s: _compare_strings(symbol, a(s), b(s)))
    return Term(Kind.BOOL, lambda s: compare(symbol, a(s), b(s), is_dynamic=is_dynamic))


def _compare_strings(symbol: str, left: Value, right: Value) -> Value:
    """A property without a value compares with nothing, not even with another one."""
    if left is NULL or right is NULL:
        return UNDEFINED
    return compare(symbol, left, right, is_dynamic=False)


def _logical(node: Node) -> tuple[Term, str, Term]:
    left, symbol, right = _sides(node)
    # A bare body query on the right needs one on the left: edgeHub checks the left side twice. Kept.
    is_right_fine = right.kind in _LOGICAL or left.kind is Kind.DYNAMIC
    if not (is_right_fine and (left.kind in _LOGICAL or left.kind is Kind.DYNAMIC)):
        raise _mismatch(symbol, left, right)
    return left, symbol, right


def _and(node: Node) -> Term:
    left, _, right = _logical(node)
    if Kind.NULL in (left.kind, right.kind):
        return _constant(Kind.NULL, NULL)
    a, b = left.evaluate, right.evaluate
    return Term(Kind.BOOL, lambda s: conjunction(a(s), b(s)))


def _or(node: Node) -> Term:
    left, _, right = _logical(node)
    if left.kind is right.kind is Kind.NULL:
        return _constant(Kind.NULL, NULL)
    a, b = _null_is_false(left), _null_is_false(right)
    return Term(Kind.BOOL, lambda s: disjunction(a(s), b(s)))


def _null_is_false(term: Term) -> Evaluate:
    return (lambda _: False) if term.kind is Kind.NULL else term.evaluate


def _not(node: Node) -> Term:
    operand = _term(node.children[1])
    if operand.kind not in _LOGICAL and operand.kind is not Kind.DYNAMIC:
        raise _mismatch("NOT", operand)
    evaluate = operand.evaluate
    return Term(Kind.BOOL, lambda s: negation(evaluate(s)))


def _negate(node: Node) -> Term:
    operand = _term(node.children[1])
    if operand.kind not in (Kind.NUMBER, Kind.DYNAMIC, Kind.UNDEFINED):
        raise _mismatch("-", operand)
    evaluate = operand.evaluate

    def negated(subject: Subject) -> Value:
        value = evaluate(subject)
        return -value if isinstance(value, float) else UNDEFINED

    return Term(operand.kind, negated)


def _arithmetic(node: Node) -> Term:
    left, symbol, right = _sides(node)
    if any(term.kind not in (Kind.NUMBER, Kind.DYNAMIC) for term in (left, right)):
        raise _mismatch(symbol, left, right)
    a, b, work = left.evaluate, right.evaluate, _ARITHMETIC[symbol]
    kind = Kind.DYNAMIC if Kind.DYNAMIC in (left.kind, right.kind) else Kind.NUMBER
    return Term(kind, lambda s: _calculate(work, a(s), b(s)))


def _calculate(work: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if not (isinstance(left, float) and isinstance(right, float)):
        return UNDEFINED
    try:
        result = work(left, right)
    except OverflowError:
        return math.inf
    return UNDEFINED if math.isnan(result) else result


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if not a or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _modulo(a: float, b: float) -> float:
    """As in .NET: the sign of the dividend; nothing modulo zero."""
    return math.fmod(a, b) if b and not math.isinf(a) else math.nan


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _modulo,
}


def _coalesce(node: Node) -> Term:
    left, symbol, right = _sides(node)
    if not _alike(left, right):
        raise _mismatch(symbol, left, right)
    a, b = left.evaluate, right.evaluate
    kind = Kind.DYNAMIC if Kind.DYNAMIC in (left.kind, right.kind) else left.kind

    def first_defined(subject: Subject) -> Value:
        value = a(subject)
        return b(subject) if value is UNDEFINED else value

    return Term(kind, first_defined)


# --- functions -------------------------------------------------------------------------------------------------------


def _concat(node: Node) -> Term:
    left, _, right = _sides(node)
    return _apply("concat", (left, right))


def _call(node: Node) -> Term:
    lists = [child for child in node.children if isinstance(child, Tree)]
    arguments = [child for child in lists[0].children if isinstance(child, Tree)] if lists else []
    return _apply(str(node.children[0]), tuple(map(_term, arguments)))


def _apply(name: str, arguments: tuple[Term, ...]) -> Term:
    function = FUNCTIONS.get(name.lower())
    if function is None:
        raise RouteCompileError(f"there is no function {name!r}")
    kinds = tuple(argument.kind for argument in arguments)
    if not function.fits(kinds):
        raise RouteCompileError(f"function {name!r} does not take ({', '.join(kind.value for kind in kinds)})")
    evaluators = tuple(argument.evaluate for argument in arguments)
    if name.lower() == "is_null" and kinds == (Kind.DYNAMIC,):
        body = evaluators[0]
        return Term(Kind.BOOL, lambda s: body_is_null(body(s)))
    return Term(function.result, lambda s: function(*[evaluate(s) for evaluate in evaluators]))


_COMPILERS: dict[str, Callable[[Node], Term]] = {
    "true": lambda _: _constant(Kind.BOOL, True),
    "false": lambda _: _constant(Kind.BOOL, False),
    "null": lambda _: _constant(Kind.NULL, NULL),
    "undefined": lambda _: _constant(Kind.UNDEFINED, UNDEFINED),
    "number": _number,
    "hex_number": _hex_number,
    "string": _string,
    "property": _property,
    "dollar_property": _dollar_property,
    "escaped_property": _escaped_property,
    "nested": _nested,
    "compare": _compare,
    "and_": _and,
    "or_": _or,
    "not_": _not,
    "negate": _negate,
    "arithmetic": _arithmetic,
    "concat": _concat,
    "coalesce": _coalesce,
    "call": _call,
}
