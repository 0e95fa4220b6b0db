"""A message as conditions see it: properties by name in any case, the body as JSON, each prepared at most once."""

import re
from functools import cached_property
from typing import Any

import msgspec

from simulator.runtime.messages import Message
from simulator.runtime.routing.values import NULL, UNDEFINED, Value

_ENCODINGS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "utf-32": "utf-32"}
# What Newtonsoft.Json reads as a date instead of a string.
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?|/Date\(.*\)/")

Path = tuple[str | int, ...]
_MISSING = object()


class Subject:
    def __init__(self, message: Message) -> None:
        self.message = message

    @cached_property
    def _app(self) -> dict[str, str | None]:
        return {key.lower(): value for key, value in self.message.app.items()}

    @cached_property
    def _system(self) -> dict[str, str]:
        return {key.lower(): value for key, value in self.message.system.items()}

    def has_app(self, lower_name: str) -> bool:
        return lower_name in self._app

    def app(self, lower_name: str) -> Value:
        """The application property; NULL when it came without a value."""
        value = self._app.get(lower_name, UNDEFINED)
        return NULL if value is None else value

    def system(self, lower_name: str) -> Value:
        return self._system.get(lower_name, UNDEFINED)

    @cached_property
    def _body(self) -> dict[str, Any] | None:
        if self._system.get("contenttype", "").lower() != "application/json":
            return None
        encoding = _ENCODINGS.get(self._system.get("contentencoding", "").lower())
        if encoding is None:
            return None
        try:
            root = msgspec.json.decode(self.message.body.decode(encoding))
        except (UnicodeDecodeError, msgspec.DecodeError):
            return None
        return root if isinstance(root, dict) else None

    def body(self, path: Path) -> Value:
        """A scalar of the body; NULL for a missing path, UNDEFINED for what is no scalar or no readable body."""
        if self._body is None:
            return UNDEFINED
        found: object = self._body
        for step in path:
            found = _step(found, step)
        return _scalar(found)


def _step(value: object, step: str | int) -> object:
    if isinstance(step, str):
        return value.get(step, _MISSING) if isinstance(value, dict) else _MISSING
    return value[step] if isinstance(value, list) and step < len(value) else _MISSING


def _scalar(value: object) -> Value:
    match value:
        case bool():
            return value
        case int() | float():
            return float(value)
        case str():
            return UNDEFINED if _DATE.fullmatch(value) else value
        case dict() | list():
            return UNDEFINED
        case _:
            return NULL


_PATH = re.compile(r"[^.\[\]]+(?:\[\d+\])*(?:\.[^.\[\]]+(?:\[\d+\])*)*")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def parse_path(text: str) -> Path | None:
    """`a.b[0].c` as steps; None when it is no such path."""
    if _PATH.fullmatch(text) is None:
        return None
    return tuple(name or int(index) for name, index in _STEP.findall(text))
