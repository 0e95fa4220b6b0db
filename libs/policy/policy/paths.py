"""Which places in a reading a rule speaks of.

A pattern is a JSON pointer with three more tokens:

- `*`  any one member of an object, whatever its key (never an element of an array)
- `[]` any one element of an array
- `**` as the last token: every value below, at any depth

Every other token is the exact key of an object's member, after JSON's escapes and the pointer's own (`~0`, `~1`) are
undone. So a key that is literally `*`, `**` or `[]` cannot be named, only matched.

Where several patterns match a value, the most specific one decides: compared token by token from the left, an exact
key beats `*` and `[]`, and these beat `**`. Two different patterns can never tie on the same value.
"""

from typing import Final, NamedTuple

from contract.pointer import parse_pointer

ANY_KEY: Final = "*"
ANY_ELEMENT: Final = "[]"
SUBTREE: Final = "**"
DEPTH_LIMIT: Final = 16


class Element(NamedTuple):
    """A step into an array, as opposed to one to an object's member (a plain str)."""

    position: int


Step = str | Element


class Pattern(NamedTuple):
    tokens: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in self.tokens)

    @property
    def has_wildcard(self) -> bool:
        return any(token in (ANY_KEY, ANY_ELEMENT, SUBTREE) for token in self.tokens)

    @property
    def specificity(self) -> tuple[int, ...]:
        """Of two patterns that match the same value the one with the smaller tuple decides."""
        return tuple(2 if token == SUBTREE else 1 if token in (ANY_KEY, ANY_ELEMENT) else 0 for token in self.tokens)

    def key_wildcards(self) -> list["Pattern"]:
        """The prefixes that end in a wildcard for keys: what their keys say needs a rule of its own."""
        return [Pattern(self.tokens[: n + 1]) for n, token in enumerate(self.tokens) if token in (ANY_KEY, SUBTREE)]

    def matches(self, place: tuple[Step, ...]) -> bool:
        """Whether this pattern speaks of the value at `place`; the reference for the compiled form in `plan`."""
        head = self.tokens
        if head[-1] == SUBTREE:
            head = head[:-1]
            if len(place) <= len(head):
                return False
        elif len(place) != len(head):
            return False
        return all(_token_matches(token, step) for token, step in zip(head, place, strict=False))


def _token_matches(token: str, step: Step) -> bool:
    if isinstance(step, Element):
        return token == ANY_ELEMENT
    return token == ANY_KEY or (token == step and token != ANY_ELEMENT)


def parse_pattern(text: str) -> Pattern:
    """Raises ValueError with a line that says what is wrong."""
    tokens = parse_pointer(text)
    if not tokens:
        raise ValueError("the empty path is the whole reading; name its fields, or use /** for all of them")
    if len(tokens) > DEPTH_LIMIT:
        raise ValueError(f"at most {DEPTH_LIMIT} levels")
    if SUBTREE in tokens[:-1]:
        raise ValueError("** stands only at the end of a path")
    return Pattern(tokens)


def place_text(place: tuple[Step, ...]) -> str:
    """The JSON pointer of one value."""
    steps = (str(step.position) if isinstance(step, Element) else step for step in place)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
