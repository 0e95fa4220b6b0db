"""What may stand in reported properties, and how little of it need be sent. Pure.

edgeHub refuses (400) keys with `.`, `$`, `#` or white space, text above 4,096 bytes, nulls in arrays, numbers beyond
2^52 and more than ten levels; the hub refuses documents above 32 KB. Ours stay below 16 KB.
"""

import re
from collections.abc import Mapping

import msgspec

LIMIT_BYTES = 16 * 1024
_TEXT_CHARS = 1000
_LARGEST_INTEGER = 2**52
_DEPTH = 8
_BAD_IN_KEY = re.compile(r"[.$#\s\x00-\x1f\x7f]")
# Never cut away: without these an operator is blind.
_FIRST = ("health", "settings", "version")


def clean(value: object, depth: int = _DEPTH) -> object:
    """The value in a form that edgeHub takes. A key must not come from outside; one that would be refused is mended."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return value[:_TEXT_CHARS]
    if isinstance(value, int):
        return max(-_LARGEST_INTEGER, min(_LARGEST_INTEGER, value))
    if isinstance(value, float):
        return value
    if depth == 0:
        return str(value)[:_TEXT_CHARS]
    if isinstance(value, Mapping):
        return {_BAD_IN_KEY.sub("_", str(key))[:200]: clean(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(inner, depth - 1) for inner in value if inner is not None]
    return clean(msgspec.to_builtins(value), depth)


def fit(report: Mapping[str, object], limit: int = LIMIT_BYTES) -> dict[str, object]:
    """Clean, and cut to the limit: lists lose their tails (they hold the worst first), then whole entries go."""
    fitted = {key: clean(value) for key, value in report.items()}
    while _size(fitted) > limit:
        optional = [key for key in fitted if key not in _FIRST] or list(fitted)
        largest = max(optional, key=lambda key: _size(fitted[key]))
        value = fitted[largest]
        if isinstance(value, list) and len(value) > 1:
            fitted[largest] = value[: len(value) // 2]
        else:
            del fitted[largest]
        fitted["truncated"] = True
    return fitted


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """The merge patch (RFC 7396) that makes `new` of `old`."""
    patch: dict[str, object] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := difference(before, value):
                patch[key] = inner
        elif value != before and not (value is None and key not in old):
            patch[key] = value
    return patch


def merge(document: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """Apply a merge patch (RFC 7396)."""
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _size(value: object) -> int:
    return len(msgspec.json.encode(value))
