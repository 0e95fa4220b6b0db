"""Toxics as the JSON documents that toxiproxy's HTTP API speaks, and lost responses as ones of the same kind. Pure.

    {"name": "latency_downstream", "type": "latency", "stream": "downstream", "toxicity": 1.0,
     "attributes": {"latency": 500, "jitter": 50}}

`down` is a toxic here; in toxiproxy's API it is a proxy's `enabled: false`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.fault_proxy.http_watch import LoseResponse, Request, any_request
from simulator.fault_proxy.toxics import (
    Bandwidth,
    Down,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stream,
    Timeout,
    Toxic,
)

_CLASSES: Final[tuple[type[Toxic], ...]] = (
    Latency,
    Down,
    Bandwidth,
    SlowClose,
    Timeout,
    ResetPeer,
    Slicer,
    LimitData,
)
TYPES: Final = {kind.type: kind for kind in _CLASSES}
_COMMON: Final = {field.name for field in dataclasses.fields(Toxic)}
ATTRIBUTES: Final = {
    kind.type: {field.name: field.type for field in dataclasses.fields(kind) if field.name not in _COMMON}
    for kind in _CLASSES
}
"""Of each type: attribute and its type, `int` or `float`."""


class BadDocument(ValueError):
    """What is wrong with it, in one line."""


class InvalidType(BadDocument):
    pass


class InvalidStream(BadDocument):
    pass


def toxic_document(toxic: Toxic) -> dict[str, Any]:
    attributes = {name: getattr(toxic, name) for name in ATTRIBUTES[toxic.type]}
    return {
        "attributes": attributes,
        "name": toxic.name,
        "type": toxic.type,
        "stream": toxic.stream,
        "toxicity": toxic.toxicity,
    }


def read_toxic(document: object) -> Toxic:
    """Absent: `stream` is downstream, `toxicity` 1, `name` `<type>_<stream>`, an attribute 0. Raises BadDocument."""
    fields = _object(document, "a toxic")
    _refuse_unknown(fields, ("attributes", "name", "type", "stream", "toxicity"), "a toxic")
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise InvalidType(f"{kind!r} is no type of toxic; there are {', '.join(TYPES)}")
    stream: Stream
    match fields.get("stream") or "downstream":
        case "upstream":
            stream = "upstream"
        case "downstream":
            stream = "downstream"
        case other:
            raise InvalidStream(f"{other!r} is no stream; there are upstream, downstream")
    name = fields.get("name") or ""
    if not isinstance(name, str):
        raise BadDocument("the name is no text")
    toxicity = fields.get("toxicity")
    toxicity = 1.0 if toxicity is None else _number(toxicity, "toxicity")
    attributes = _attributes(kind, fields.get("attributes"))
    try:
        return TYPES[kind](name=name, stream=stream, toxicity=toxicity, **attributes)
    except ValueError as error:
        raise BadDocument(f"{kind}: {error}") from None


def changed_toxic(toxic: Toxic, document: object) -> Toxic:
    """With the document's toxicity and attributes; name, type and stream stay as they are. Raises BadDocument."""
    fields = _object(document, "a toxic")
    held = toxic_document(toxic)
    attributes = fields.get("attributes")
    if attributes is not None:
        held["attributes"] |= _object(attributes, "attributes")
    if fields.get("toxicity") is not None:
        held["toxicity"] = fields["toxicity"]
    return read_toxic(held)


def read_loss(document: object) -> LoseResponse:
    """{"method": "PUT", "path": "/part/of/it", "nth": 1, "then": "reset"}; all optional, `nth` null: each of them.

    Raises BadDocument.
    """
    fields = _object(document, "a lost response")
    _refuse_unknown(fields, ("method", "path", "nth", "then"), "a lost response")
    nth = fields.get("nth", 1)
    if nth is not None and (not isinstance(nth, int) or isinstance(nth, bool) or nth < 1):
        raise BadDocument(f"nth is {nth!r}; it must be a number from 1, or null for each request")
    then = fields.get("then", "reset")
    if then not in ("reset", "silent"):
        raise BadDocument(f"then is {then!r}; it must be reset or silent")
    method, path = fields.get("method"), fields.get("path")
    if not all(text is None or isinstance(text, str) for text in (method, path)):
        raise BadDocument("method and path must be texts")
    if method is None and path is None:
        return LoseResponse(any_request, nth, then)

    def matches(request: Request) -> bool:
        return (method is None or request.method == method.upper()) and (path is None or path in request.path)

    return LoseResponse(matches, nth, then)


def _attributes(kind: str, document: object) -> dict[str, float]:
    given = {} if document is None else _object(document, "attributes")
    known = ATTRIBUTES[kind]
    _refuse_unknown(given, tuple(known), kind)
    values: dict[str, float] = {}
    for name, wanted in known.items():
        value = _number(given.get(name, 0), name)
        if wanted is int or wanted == "int":
            if value != int(value):
                raise BadDocument(f"{name} is {value}; it must be a whole number")
            value = int(value)
        values[name] = value
    return values


def _object(document: object, what: str) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise BadDocument(f"{what} is no JSON object")
    return document


def _refuse_unknown(fields: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    # The keys of a script in YAML can be anything.
    if unknown := sorted(str(key) for key in fields.keys() - set(known)):
        has = ", ".join(known) or "none at all"
        raise BadDocument(f"{what} has no {', '.join(unknown)}; there are {has}")


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadDocument(f"{name} is {value!r}; it must be a number")
    return value
