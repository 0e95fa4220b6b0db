"""JSON Pointer (RFC 6901), for the fields that a manifest names."""

from collections.abc import Mapping, Sequence
from typing import Final


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


# Distinct from None: a JSON null that is there is not a field that is absent.
MISSING: Final = _Missing()


def parse_pointer(text: str) -> tuple[str, ...]:
    """Split a pointer into its reference tokens; "" is the whole document.

    Raises ValueError when the text is not a JSON pointer (section 3 of the RFC).
    """
    if text == "":
        return ()
    if not text.startswith("/"):
        raise ValueError(f"a JSON pointer starts with '/', this one does not: {text!r}")
    tokens = []
    for token in text[1:].split("/"):
        if "~" in token.replace("~0", "").replace("~1", ""):
            raise ValueError(f"'~' in a JSON pointer is written '~0': {text!r}")
        tokens.append(token.replace("~1", "/").replace("~0", "~"))
    return tuple(tokens)


def resolve(document: object, tokens: tuple[str, ...]) -> object:
    """The value at the pointer, or MISSING (section 4 of the RFC; '-' names no element)."""
    value = document
    for token in tokens:
        if isinstance(value, Mapping):
            if token not in value:
                return MISSING
            value = value[token]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if not (token.isascii() and token.isdigit()) or (token[0] == "0" and token != "0"):
                return MISSING
            if int(token) >= len(value):
                return MISSING
            value = value[int(token)]
        else:
            return MISSING
    return value
