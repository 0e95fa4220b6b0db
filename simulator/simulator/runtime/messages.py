"""A routed message, and how its properties travel in an MQTT topic.

Names, traps and the size rule are edgeHub's (ProtocolGatewayMessageConverter, UrlEncodedDictionarySerializer,
Routing.Core's Message). Nothing here touches a socket or a clock.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

MESSAGE_LIMIT_BYTES = 262_144

# wire key -> system property, for what clients send.
_INBOUND = {
    "$.mid": "messageId",
    "$.cid": "cid",
    "$.uid": "userId",
    "$.to": "to",
    "$.ct": "contentType",
    "$.ce": "contentEncoding",
    "$.exp": "absolute-expiry-time",
    "$.ctime": "creationTime",
    "$.on": "outputName",
    "$.schema": "messageSchema",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
    "ack": "ack",
    "iothub-operation": "operation",
}
# system property -> wire key, for what the hub sends. The output's name and the interface id stay behind.
_OUTBOUND = {name: key for key, name in _INBOUND.items() if name not in ("outputName", "iothub-interface-id")} | {
    "connectionDeviceId": "$.cdid",
    "connectionModuleId": "$.cmid",
}

Properties = Mapping[str, str | None]


class BadPropertyBag(Exception):
    """The bag cannot be read; edgeHub acknowledges such a message and drops it."""


class Message(msgspec.Struct, frozen=True):
    """What routes see and queues hold. `source` is the routing source such as `/messages/modules/m/outputs/o/`."""

    source: str
    app: dict[str, str | None]
    system: dict[str, str]
    body: bytes


def parse_bag(bag: str) -> dict[str, str | None]:
    """`k=v&…`, percent-encoded (`+` stays `+`); `k` and `k=` carry null. An empty bag is no property at all."""
    properties: dict[str, str | None] = {}
    if not bag:
        return properties
    for part in bag.split("&"):
        key, separator, value = part.partition("=")
        if not key:
            raise BadPropertyBag("a property has no name")
        if "=" in value:
            raise BadPropertyBag(f"property {key!r} has an unencoded '=' in its value")
        properties[_decoded(key)] = _decoded(value) if separator and value else None
    return properties


def _decoded(text: str) -> str:
    return unquote(text) if "%" in text else text


def split_properties(bag: Properties) -> tuple[dict[str, str | None], dict[str, str]]:
    """(application, system) properties of an inbound bag. Raises BadPropertyBag for names differing only in case."""
    app: dict[str, str | None] = {}
    system: dict[str, str] = {}
    for key, value in bag.items():
        name = _INBOUND.get(key)
        if name is None:
            app[key] = value
        elif value is not None:
            system[name] = value
    if len({key.lower() for key in app}) != len(app):
        raise BadPropertyBag("two property names differ only in case")
    return app, system


def outbound_bag(message: Message) -> str:
    """The bag of an input message: application properties first, then system ones, each escaped."""
    wire: dict[str, str | None] = dict(message.app)
    for name, key in _OUTBOUND.items():
        if name in message.system:
            wire[key] = message.system[name]
    return "&".join(_pair(key, value) for key, value in wire.items())


def _pair(key: str, value: str | None) -> str:
    escaped = quote(key, safe="")
    return escaped if value is None else f"{escaped}={quote(value, safe='')}"


def message_size(message: Message) -> int:
    """Bytes as edgeHub counts them; a null value resets the running sum of its group, as it does there (a bug)."""
    return _group_size(message.app) + _group_size(message.system) + len(message.body)


def _group_size(properties: Properties) -> int:
    total = 0
    for key, value in properties.items():
        total = 0 if value is None else total + len(key) + len(value)
    return total
