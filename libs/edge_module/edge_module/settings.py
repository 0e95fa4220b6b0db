"""Settings from the twin's desired properties: taken whole or refused whole.

A module's settings are a frozen msgspec.Struct; each field has a type, a default, its unit in its name, and
`Annotated[..., Meta(ge=…, le=…, description=…)]`. Keys that the structure does not know are reported, not swallowed.
"""

import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

_AT_PATH = re.compile(r" - at `(\$[^`]*)`$")
_FIELD = re.compile(r"(?:required|unknown) field `([^`]+)`")


class Accepted(msgspec.Struct, Generic[S], frozen=True):
    settings: S
    version: int | None
    unknown: tuple[str, ...] = ()


class RefusedDocument(msgspec.Struct, frozen=True):
    version: int | None
    path: str
    reason: str


def parse(settings_type: type[S], desired: Mapping[str, object]) -> Accepted[S] | RefusedDocument:
    """The whole desired document (with `$version`) as settings, or why not."""
    version = desired.get("$version")
    version = version if isinstance(version, int) else None
    document = {key: value for key, value in desired.items() if not key.startswith("$") and value is not None}
    try:
        settings = msgspec.convert(document, settings_type)
    except msgspec.ValidationError as error:
        text = str(error)
        path = _AT_PATH.search(text)
        reason = _AT_PATH.sub("", text)
        where = path[1] if path else "$"
        if field := _FIELD.search(reason):
            where = f"{where}.{field[1]}"
        return RefusedDocument(version, where, reason)
    return Accepted(settings, version, tuple(sorted(_unknown(document, settings_type, "$"))))


def _unknown(value: object, kind: Any, path: str) -> typing.Iterator[str]:
    """The paths of keys that no structure names, at any depth."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _unknown(value, typing.get_args(kind)[0], path)
    elif origin in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
        for arm in arms if len(arms) == 1 else filter(lambda arm: _is_tagged(value, arm), arms):
            yield from _unknown(value, arm, path)
    elif isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        tag = kind.__struct_config__.tag_field
        for key, inner in value.items():
            if key in fields:
                yield from _unknown(inner, fields[key], f"{path}.{key}")
            elif key != tag:
                yield f"{path}.{key}"
    elif isinstance(value, list) and origin in (list, tuple, frozenset, set):
        inner_kind = typing.get_args(kind)[0]
        for index, inner in enumerate(value):
            yield from _unknown(inner, inner_kind, f"{path}[{index}]")


def _is_tagged(value: object, kind: Any) -> bool:
    """Whether the value's tag says that it is this structure."""
    if not (isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return False
    config = kind.__struct_config__
    return config.tag_field is not None and value.get(config.tag_field) == config.tag
