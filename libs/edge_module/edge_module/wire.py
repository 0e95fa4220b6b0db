"""Topics, property bags and names as edgeHub reads and writes them. Pure.

A bag is `key=value&…`, percent-encoded with no safe characters; decoding is percent-decoding only (`+` stays `+`), and
`key` or `key=` is a null value. System properties are `$.mid` and the like; every other key is the application's.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from edge_module.module import Incoming

API_VERSION = "2019-10-01"
_TWIN_RESPONSE = "$iothub/twin/res/"
_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_METHOD = "$iothub/methods/POST/"


class TwinResponse(msgspec.Struct, frozen=True):
    status: int
    request: str
    body: bytes


class DesiredPatch(msgspec.Struct, frozen=True):
    version: int | None


class MethodRequest(msgspec.Struct, frozen=True):
    name: str
    request: str
    body: bytes


Packet = Incoming | TwinResponse | DesiredPatch | MethodRequest


class Address(msgspec.Struct, frozen=True):
    """Who a module is: the hub's host name, its device and itself."""

    hub: str
    device: str
    module: str

    @property
    def client_id(self) -> str:
        return f"{self.device}/{self.module}"

    @property
    def resource(self) -> str:
        """The audience of its token."""
        return f"{self.hub}/devices/{self.device}/modules/{self.module}"

    def username(self, product: str) -> str:
        """Carries the hub's host name, even through a gateway."""
        query = f"?api-version={API_VERSION}&DeviceClientType={quote(product, safe='')}"
        return f"{self.hub}/{self.device}/{self.module}/{query}"

    def subscriptions(self) -> list[str]:
        return [
            f"devices/{self.device}/modules/{self.module}/inputs/#",
            f"{_TWIN_RESPONSE}#",
            f"{_DESIRED}#",
            f"{_METHOD}#",
        ]

    def event_topic(self, system: Iterable[tuple[str, str]], properties: Mapping[str, str]) -> str:
        bag = encode_bag([*system, *properties.items()])
        return f"devices/{self.device}/modules/{self.module}/messages/events/{bag}"


def twin_get_topic(request: str) -> str:
    return f"$iothub/twin/GET/?$rid={request}"


def twin_patch_topic(request: str) -> str:
    return f"$iothub/twin/PATCH/properties/reported/?$rid={request}"


def method_response_topic(status: int, request: str) -> str:
    return f"$iothub/methods/res/{status}/?$rid={request}"


def encode_bag(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{_encode_key(key)}={_encode(value)}" for key, value in pairs)


def _encode(text: str) -> str:
    # Ids and numbers need no encoding, and most values are one.
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


_encode_key = lru_cache(1024)(_encode)
_decode_key = lru_cache(1024)(unquote)


def decode_bag(bag: str) -> dict[str, str | None]:
    properties: dict[str, str | None] = {}
    for pair in bag.split("&"):
        key, _, value = pair.partition("=")
        if key:
            properties[_decode_key(key)] = unquote(value) or None
    return properties


def decode(topic: str, payload: bytes) -> Packet | None:
    """What a packet from edgeHub says; None when its topic is none that this client subscribed to."""
    if topic.startswith("devices/"):
        return _decode_input(topic, payload)
    if topic.startswith(_TWIN_RESPONSE):
        status, _, query = topic.removeprefix(_TWIN_RESPONSE).partition("/")
        request = _query(query).get("$rid")
        return TwinResponse(int(status), request, payload) if request and status.isdecimal() else None
    if topic.startswith(_DESIRED):
        version = _query(topic.removeprefix(_DESIRED)).get("$version") or ""
        return DesiredPatch(int(version) if version.isdecimal() else None)
    if topic.startswith(_METHOD):
        name, _, query = topic.removeprefix(_METHOD).rpartition("/")
        request = _query(query).get("$rid")
        return MethodRequest(name, request, payload) if request and name else None
    return None


def _query(text: str) -> dict[str, str | None]:
    return decode_bag(text.removeprefix("?"))


def _decode_input(topic: str, payload: bytes) -> Incoming | None:
    """`devices/{d}/modules/{m}/inputs/{input}/{bag}`; the ids in the topic are the receiver's."""
    parts = topic.split("/", 6)
    if len(parts) < 6 or parts[2] != "modules" or parts[4] != "inputs":
        return None
    properties = decode_bag(parts[6]) if len(parts) == 7 else {}
    return Incoming(
        input=parts[5],
        body=payload,
        properties={key: value or "" for key, value in properties.items() if not key.startswith("$.")},
        device=properties.get("$.cdid") or "",
        module=properties.get("$.cmid") or "",
        message_id=properties.get("$.mid"),
        content_type=properties.get("$.ct"),
        content_encoding=properties.get("$.ce"),
        created=properties.get("$.ctime"),
    )
