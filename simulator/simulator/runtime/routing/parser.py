"""Route text to a syntax tree. Types are not looked at here: that is `conditions`."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedEOF, UnexpectedToken, VisitError

from simulator.runtime.routing.errors import RouteSyntaxError
from simulator.runtime.routing.lexer import MaximalMunch

Node = Tree[Token]


@dataclass(frozen=True, slots=True)
class ParsedRoute:
    """`source` as written, `condition` None without WHERE, `sink` is `$upstream` or (function, argument)."""

    source: str
    condition: Node | None
    sink_function: str | None  # None for a system endpoint
    sink_argument: str


@cache
def _lark() -> Lark:
    grammar = (Path(__file__).parent / "route.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer=MaximalMunch, keep_all_tokens=True, maybe_placeholders=False)


def parse_route(text: str) -> ParsedRoute:
    """Raises RouteSyntaxError, which names the place."""
    try:
        tree = _lark().parse(text)
    except UnexpectedToken as error:
        raise RouteSyntaxError(_describe(error, text)) from None
    except (UnexpectedEOF, VisitError) as error:
        raise RouteSyntaxError(f"{error} in route {text!r}") from None
    parts = {part.data: part for part in tree.children if isinstance(part, Tree)}
    source = "".join(str(token) for token in parts["source"].scan_values(lambda _: True))
    condition = parts["where"].children[1] if "where" in parts else None
    if "system_sink" in parts:
        return ParsedRoute(source, _node(condition), None, str(parts["system_sink"].children[0]))
    function, _, argument, _ = parts["function_sink"].children
    return ParsedRoute(source, _node(condition), str(function), unescape(str(argument)))


def _node(condition: object) -> Node | None:
    return condition if isinstance(condition, Tree) else None


def _describe(error: UnexpectedToken, text: str) -> str:
    token = error.token
    if token.type == "$END":
        return f"the route ends too early: {text!r}"
    if token.type == "UNTERMINATED_STRING":
        return f"unterminated string at character {token.column} of route {text!r}"
    return f"unexpected {str(token)!r} at character {token.column} of route {text!r}"


def unescape(literal: str) -> str:
    """The text of a quoted literal: `\\uXXXX` first, then `\\'`, `\\"` and `\\\\`."""
    inner = re.sub(r"\\[Uu]([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), literal[1:-1])
    return re.sub(r"""\\(["'\\])""", r"\1", inner)
