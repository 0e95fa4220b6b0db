"""One lane's field rules, compiled so that each value of a reading is met once.

The rules form a tree over their tokens. A reading is walked from the top with the ordered list of all rules that still
may match; the order is that of `paths.Pattern.specificity`, so the first rule that reaches a value decides. Every such
list is one `State`, computed when the policy is compiled; a row then costs one dictionary look-up per field.

Promises: what no rule names is absent. Of a key that stands twice in one object only the last value exists, and it is
emitted once. An object or array that ends up empty is absent as well, so that output tells nothing of what was denied
inside. Nothing deeper than 64 levels leaves.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from policy.errors import PolicyError
from policy.paths import ANY_ELEMENT, ANY_KEY, SUBTREE
from policy.transforms import Action

VALUE_DEPTH_LIMIT: Final = 64
STATE_LIMIT: Final = 10_000

_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_ELEMENTS: Final = msgspec.json.Decoder(list[Raw])
_KEY: Final = msgspec.json.Encoder()
_OBJECT, _ARRAY = ord("{"), ord("[")


class NotAnObject(ValueError):
    """The reading is no JSON object."""


def members(reading: Raw) -> dict[str, Raw]:
    """The reading's own members, in its order; the last of equal keys. Raises NotAnObject."""
    try:
        return _MEMBERS.decode(reading)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotAnObject(str(error)) from None


class _Node:
    """What the rules say at one pattern: `leaf` for the value itself, `below` for all that is deeper."""

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.leaf: _Ruling | None = None
        self.below: _Ruling | None = None


class _Ruling:
    """A rule's decision; `action` is None where it denies."""

    def __init__(self, action: Action | None) -> None:
        self.action = action


class State:
    """Where the walk stands inside an object or array."""

    def __init__(self) -> None:
        self.known: dict[str, Edge | None] = {}
        self.other: Edge | None = None
        self.element: Edge | None = None


class Edge:
    """One step down: what to do with a plain value there, and how to go on in a container."""

    def __init__(self, label: bytes, action: Action | None, state: State | None) -> None:
        self.label = label
        self.action = action
        self.state = state


def compile_plan(rules: Iterable[tuple[tuple[str, ...], Action | None]]) -> State:
    """Raises PolicyError `too_large` when wildcards multiply into too many states."""
    return _Compiler(_tree(rules)).start


def _tree(rules: Iterable[tuple[tuple[str, ...], Action | None]]) -> _Node:
    root = _Node()
    for tokens, action in rules:
        node = root
        for token in tokens if tokens[-1] != SUBTREE else tokens[:-1]:
            node = node.children.setdefault(token, _Node())
        ruling = _Ruling(action)
        if tokens[-1] == SUBTREE:
            node.below = ruling
            continue
        node.leaf = ruling
        if action is None:
            node.below = ruling  # a drop covers what it names and everything below
    return root


class _Compiler:
    def __init__(self, root: _Node) -> None:
        self._states: dict[tuple[int, ...], State] = {}
        self.start = self._state([root])

    def _state(self, active: list[_Node | _Ruling]) -> State:
        identity = tuple(id(item) for item in active)
        if identity in self._states:
            return self._states[identity]
        if len(self._states) == STATE_LIMIT:
            raise PolicyError("too_large", "fields", f"the wildcards combine into more than {STATE_LIMIT} cases")
        state = self._states[identity] = State()
        names = {name for item in active if isinstance(item, _Node) for name in item.children}
        for name in sorted(names - {ANY_KEY, ANY_ELEMENT}):
            # None stands here too, or the wildcard would take a key whose own rule denies it.
            state.known[name] = self._edge(active, (name, ANY_KEY), label=_KEY.encode(name) + b":")
        state.other = self._edge(active, (ANY_KEY,), label=b"")
        state.element = self._edge(active, (ANY_ELEMENT,), label=b"")
        return state

    def _edge(self, active: list[_Node | _Ruling], tokens: tuple[str, ...], *, label: bytes) -> Edge | None:
        following = _follow(active, tokens)
        action = next((ruling.action for ruling in map(_leaf, following) if ruling is not None), None)
        if action is None and not any(map(_may_release, following)):
            return None
        return Edge(label, action, self._state(following))


def _follow(active: list[_Node | _Ruling], tokens: tuple[str, ...]) -> list[_Node | _Ruling]:
    following: list[_Node | _Ruling] = []
    for item in active:
        if isinstance(item, _Ruling):
            following.append(item)
            break  # it decides everything from here on
        following.extend(item.children[token] for token in tokens if token in item.children)
        if item.below is not None:
            following.append(item.below)
            break
    return following


def _leaf(item: _Node | _Ruling) -> _Ruling | None:
    return item if isinstance(item, _Ruling) else item.leaf


def _may_release(item: _Node | _Ruling) -> bool:
    if isinstance(item, _Ruling):
        return item.action is not None
    own = any(ruling is not None and ruling.action is not None for ruling in (item.leaf, item.below))
    return own or any(map(_may_release, item.children.values()))


def apply(state: State, fields: Mapping[str, Raw]) -> bytes | None:
    """The object's text with only what may leave, or None when nothing may."""
    return _object(state, fields, VALUE_DEPTH_LIMIT)


def _object(state: State, fields: Mapping[str, Raw], depth: int) -> bytes | None:
    known, other = state.known, state.other
    parts = []
    for key, raw in fields.items():
        edge = known.get(key, other)
        if edge is None:
            continue
        value = _value(edge, bytes(raw), depth)
        if value is not None:
            parts.append((edge.label or _KEY.encode(key) + b":") + value)
    return b"{" + b",".join(parts) + b"}" if parts else None


def _array(edge: Edge, elements: list[Raw], depth: int) -> bytes | None:
    values = [value for raw in elements if (value := _value(edge, bytes(raw), depth)) is not None]
    return b"[" + b",".join(values) + b"]" if values else None


def _value(edge: Edge, text: bytes, depth: int) -> bytes | None:
    first = text[0]
    if first != _OBJECT and first != _ARRAY:
        return edge.action(text) if edge.action is not None else None
    if edge.state is None or depth == 1:
        return None
    try:
        if first == _OBJECT:
            return _object(edge.state, _MEMBERS.decode(text), depth - 1)
        if edge.state.element is not None:
            return _array(edge.state.element, _ELEMENTS.decode(text), depth - 1)
    except RecursionError:
        pass  # hundreds of levels below the limit above: denied like all that is too deep
    return None
