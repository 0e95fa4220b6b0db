"""Topics of edgeHub: what an inbound one means, and what outbound ones look like. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

TWIN_PREFIX = "$iothub/twin/"
METHOD_RESPONSE_PREFIX = "$iothub/methods/res/"
TWIN_RESPONSE_FILTER = "$iothub/twin/res/#"

# Anchored at the end only, as edgeHub's templates are; the first that matches wins.
_TELEMETRY = (
    re.compile(r"devices/(?P<device>[^/]+)/messages/events(?:/(?P<bag>[^/]+))?/?$"),
    re.compile(r"devices/(?P<device>[^/]+)/modules/(?P<module>[^/]+)/messages/events(?:/(?P<bag>[^/]+))?/?$"),
)
_METHOD_RESPONSE = re.compile(r"^\$iothub/methods/res/(?P<status>[^/]+)/\?\$rid=(?P<rid>[^&]+)")
_INPUTS_FILTER = re.compile(r"^devices/.+/modules/.+/#$")


class UnknownTopic(Exception):
    """No template matches. edgeHub logs it, acknowledges the packet and loses the message."""


class MalformedTwinTopic(Exception):
    """The one kind of topic that makes edgeHub close the connection."""


@dataclass(frozen=True, slots=True)
class TelemetryTopic:
    device: str
    module: str  # "" for a leaf device
    bag: str


@dataclass(frozen=True, slots=True)
class TwinGet:
    rid: str


@dataclass(frozen=True, slots=True)
class TwinPatch:
    rid: str | None  # without it the patch is applied and nobody is told


@dataclass(frozen=True, slots=True)
class MethodResponse:
    rid: str
    status: int


InboundTopic = TelemetryTopic | TwinGet | TwinPatch | MethodResponse


def parse_inbound(topic: str) -> InboundTopic:
    """What a client's PUBLISH is about. Raises UnknownTopic or MalformedTwinTopic."""
    if topic.startswith(TWIN_PREFIX):
        return _parse_twin(topic[len(TWIN_PREFIX) :])
    if topic.startswith(METHOD_RESPONSE_PREFIX):
        return _parse_method_response(topic)
    for template in _TELEMETRY:
        if (found := template.search(topic)) is not None:
            groups = found.groupdict()
            return TelemetryTopic(groups["device"], groups.get("module") or "", groups["bag"] or "")
    raise UnknownTopic(topic)


def _parse_twin(rest: str) -> TwinGet | TwinPatch:
    path, separator, query = rest.partition("?")
    rid = _rid(query) if separator else None
    match path.rstrip("/"):
        case "GET":
            if not rid:
                raise MalformedTwinTopic("a twin GET without $rid")
            return TwinGet(rid)
        case "PATCH/properties/reported":
            return TwinPatch(rid)
    raise MalformedTwinTopic(f"{TWIN_PREFIX}{rest}")


def _rid(query: str) -> str | None:
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key == "$rid":
            return unquote(value) or None
    return None


def _parse_method_response(topic: str) -> MethodResponse:
    found = _METHOD_RESPONSE.match(topic)
    if found is None:
        raise UnknownTopic(topic)
    status = found["status"]
    is_number = re.fullmatch(r"[+-]?\d{1,9}", status) is not None
    return MethodResponse(found["rid"].lower(), int(status) if is_number else 400_000)


def input_topic(device: str, module: str, input_name: str, bag: str) -> str:
    return f"devices/{device}/modules/{module}/inputs/{input_name}/{bag}"


def twin_response_topic(status: int, rid: str) -> str:
    return f"$iothub/twin/res/{status}/?$rid={rid}"


def desired_topic(version: int) -> str:
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def method_topic(name: str, rid: str) -> str:
    return f"$iothub/methods/POST/{name}/?$rid={rid}"


@dataclass(frozen=True, slots=True)
class Features:
    """What a client's filters make edgeHub send at all; the MQTT match decides separately what is written."""

    methods: bool
    desired: bool
    inputs: bool
    twin_responses: bool


def features_of(filters: frozenset[str] | set[str]) -> Features:
    return Features(
        methods=any(f.startswith("$iothub/methods/POST/") for f in filters),
        desired=any(f.startswith("$iothub/twin/PATCH/properties/desired/") for f in filters),
        inputs=any(_INPUTS_FILTER.match(f) is not None for f in filters),
        twin_responses=TWIN_RESPONSE_FILTER in filters,
    )
