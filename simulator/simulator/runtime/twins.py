"""Twin documents: merging, difference and the rules for reported properties. Pure.

A document is a JSON object; `$version` and `$metadata` are added when it is shown, never stored inside.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

JsonObject = dict[str, Any]  # any JSON value below the top level

DEPTH_LIMIT = 10
KEY_LIMIT_BYTES = 1024
STRING_LIMIT_BYTES = 4096
DOCUMENT_LIMIT_BYTES = 32 * 1024
_INTEGER_LIMIT = 2**52


class BadPatch(Exception):
    """The patch is refused as a whole; edgeHub answers 400."""


class Twin(msgspec.Struct, frozen=True):
    """One client's twin. `synced` is the desired document the client may know (None: it never asked)."""

    desired: JsonObject
    desired_version: int
    reported: JsonObject
    reported_version: int
    tags: JsonObject
    synced: JsonObject | None


EMPTY = Twin({}, 1, {}, 1, {}, None)


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> JsonObject:
    """The document with the patch applied: null deletes, objects merge, everything else replaces."""
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> JsonObject:
    """The smallest patch with `merge(old, patch) == new`."""
    patch: JsonObject = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if inner := difference(old[key], value):
                patch[key] = inner
        elif value != old[key] or isinstance(value, bool) != isinstance(old[key], bool):
            # A whole object cannot replace a scalar's members by merging, and need not: merge starts from nothing.
            patch[key] = value
    return patch


def without_markers(document: Mapping[str, Any]) -> JsonObject:
    """The document without `$version` and `$metadata`, which writers may send back."""
    return {key: value for key, value in document.items() if not key.startswith("$")}


def for_client(twin: Twin) -> JsonObject:
    """What a twin GET answers."""
    return {
        "desired": twin.desired | {"$version": twin.desired_version},
        "reported": twin.reported | {"$version": twin.reported_version},
    }


def check_reported(patch: object, current: Mapping[str, Any]) -> JsonObject:
    """The patch, if edgeHub would take it on top of `current`. Raises BadPatch."""
    if not isinstance(patch, dict):
        raise BadPatch("reported properties are a JSON object")
    _check_value(patch, depth=0)
    size = len(msgspec.json.encode(merge(current, patch)))
    if size > DOCUMENT_LIMIT_BYTES:
        raise BadPatch(f"reported properties would be {size} bytes, more than {DOCUMENT_LIMIT_BYTES}")
    return patch


def _check_value(value: object, depth: int) -> None:
    match value:
        case dict():
            if depth > DEPTH_LIMIT:  # the root is level 0
                raise BadPatch(f"deeper than {DEPTH_LIMIT} levels")
            for key, inner in value.items():
                _check_key(key)
                _check_value(inner, depth + 1)
        case list():
            if any(item is None for item in value):
                raise BadPatch("an array holds null")
            for item in value:
                _check_value(item, depth + 1)
        case str():
            if len(value.encode()) > STRING_LIMIT_BYTES:
                raise BadPatch(f"a string is longer than {STRING_LIMIT_BYTES} bytes")
        case bool() | None | float():
            pass
        case int():
            if not -_INTEGER_LIMIT <= value <= _INTEGER_LIMIT:
                raise BadPatch("an integer is outside -2^52..2^52")


def _check_key(key: str) -> None:
    if len(key.encode()) > KEY_LIMIT_BYTES:
        raise BadPatch(f"a key is longer than {KEY_LIMIT_BYTES} bytes")
    if any(c in ".$#" or c.isspace() or ord(c) < 32 or 127 <= ord(c) < 160 for c in key):
        raise BadPatch(f"key {key[:40]!r} has a character that keys must not have")
