"""Cuts a route's text into tokens exactly as edgeHub's ANTLR lexer does.

The longest match wins; among equally long ones the rule that stands first. Almost every character may be part of an
identifier, so `a!=b` and `a||b` without spaces are one identifier each: that is edgeHub's behaviour, not a mistake.
"""

import re
from collections.abc import Iterator

from lark import Token
from lark.common import LexerConf
from lark.lexer import Lexer

_STRING_BODY = r"""(?:\\(?:["'\\]|u[0-9a-fA-F]{4})|[^%s\\])*"""
_DOUBLE, _SINGLE = _STRING_BODY % '"', _STRING_BODY % "'"
_ID_CHARS = r"""[^()<>@,;:\\"/\[\]?={} \t\n\r]+"""
_QUERY_CHARS = r"""[^()<>@,;:\\"/?={} \t\n\r]+"""

_RULES: tuple[tuple[str, str], ...] = (
    ("SELECT", r"(?i:select)"),
    ("FROM", r"(?i:from)"),
    ("WHERE", r"(?i:where)"),
    ("INTO", r"(?i:into)"),
    ("OPEN_BRACE", r"\{"),
    ("CLOSE_BRACE", r"\}"),
    ("STRING", rf""""{_DOUBLE}"|'{_SINGLE}'"""),
    ("UNTERMINATED_STRING", rf""""{_DOUBLE}|'{_SINGLE}"""),
    ("INTEGER_LITERAL", r"-?[0-9]+"),
    ("HEX_INTEGER_LITERAL", r"0[Xx][0-9a-fA-F]+"),
    ("REAL_LITERAL", r"-?[0-9]*\.[0-9]+(?:[Ee][+-]?[0-9]+)?|-?[0-9]*[Ee][+-]?[0-9]+"),
    ("TRUE", "true"),
    ("FALSE", "false"),
    ("NULL", "null"),
    ("UNDEFINED", "undefined"),
    ("OPEN_PARENS", r"\("),
    ("CLOSE_PARENS", r"\)"),
    ("COMMA", ","),
    ("PLUS", r"\+"),
    ("MINUS", "-"),
    ("OP_MUL", r"\*"),
    ("OP_DIV", "/"),
    ("OP_MOD", "%"),
    ("AND", "(?i:and)"),
    ("OR", "(?i:or)"),
    ("NOT", "(?i:not)"),
    ("OP_EQ", "="),
    ("OP_NE1", "!="),
    ("OP_NE2", "<>"),
    ("OP_LE", "<="),
    ("OP_GE", ">="),
    ("OP_GT", ">"),
    ("OP_LT", "<"),
    ("OP_CONCAT", r"\|\|"),
    ("OP_COALESCE", r"\?\?"),
    ("SYS_PROP", r"\$" + _QUERY_CHARS),
    ("ID", _ID_CHARS),
    ("QUERY_PATH", _QUERY_CHARS),
    ("WS", r"[ \t\r\n]+"),
    ("COMMENT", r"(?s:/\*.*?\*/)"),
    ("UNKNOWN_CHAR", r"(?s:.)"),
)
_COMPILED = [(name, re.compile(pattern)) for name, pattern in _RULES]


def tokens_of(text: str) -> Iterator[Token]:
    """The tokens, white space and comments left out."""
    position = 0
    while position < len(text):
        name, end = _longest(text, position)
        if name not in ("WS", "COMMENT"):
            yield Token(name, text[position:end], start_pos=position, column=position + 1, line=1)
        position = end


def _longest(text: str, position: int) -> tuple[str, int]:
    best_name, best_end = "UNKNOWN_CHAR", position + 1
    found_any = False
    for name, pattern in _COMPILED:
        found = pattern.match(text, position)
        if found is not None and (found.end() > best_end or (not found_any and found.end() == best_end)):
            best_name, best_end, found_any = name, found.end(), True
    return best_name, best_end


class MaximalMunch(Lexer):
    """Lark's door to `tokens_of`: its interface for custom lexers hands over the text itself."""

    def __init__(self, conf: LexerConf) -> None:
        pass

    def lex(self, text: str) -> Iterator[Token]:  # type: ignore[override]  # that interface differs from the base class
        return tokens_of(text)
