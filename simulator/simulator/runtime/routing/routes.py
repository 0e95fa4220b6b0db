"""Routes ready for use: which queues a message goes to."""

import re
from dataclasses import dataclass

from simulator.runtime.messages import Message
from simulator.runtime.routing.conditions import Condition, compile_condition
from simulator.runtime.routing.errors import RouteCompileError
from simulator.runtime.routing.hub_config import HubConfig, RouteSpec
from simulator.runtime.routing.parser import ParsedRoute
from simulator.runtime.routing.subject import Subject

UPSTREAM = "$upstream"
_INPUT_ARGUMENT = re.compile(r"/modules/([^/]+)/inputs/([^/]+)")


@dataclass(frozen=True, slots=True)
class InputEndpoint:
    module: str
    input: str

    @property
    def id(self) -> str:
        return f"{self.module}/{self.input}"


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    prefix: str  # what a message's source starts with, lower case
    condition: Condition | None
    endpoint: str  # UPSTREAM or InputEndpoint.id
    priority: int
    ttl_secs: float | None  # None: messages never expire

    def wants(self, subject: Subject) -> bool:
        return subject.message.source.lower().startswith(self.prefix) and (
            self.condition is None or self.condition(subject)
        )


@dataclass(frozen=True, slots=True)
class Hop:
    """One delivery that the routes ask for."""

    endpoint: str
    priority: int
    ttl_secs: float | None


class Router:
    """The compiled routes of one configuration. Building it raises RouteCompileError."""

    def __init__(self, config: HubConfig) -> None:
        self._routes = [_compile(spec, config) for spec in config.routes]
        self.endpoints: dict[str, InputEndpoint | None] = {}
        for spec in config.routes:
            endpoint = _endpoint(spec.name, spec.parsed)
            self.endpoints[endpoint.id if endpoint else UPSTREAM] = endpoint

    def hops(self, message: Message) -> list[Hop]:
        """All matching routes; of several to one endpoint the one with the smallest priority number counts."""
        subject = Subject(message)
        chosen: dict[str, Route] = {}
        for route in self._routes:
            if route.wants(subject):
                best = chosen.get(route.endpoint)
                if best is None or route.priority < best.priority:
                    chosen[route.endpoint] = route
        return [Hop(route.endpoint, route.priority, route.ttl_secs) for route in chosen.values()]


def _compile(spec: RouteSpec, config: HubConfig) -> Route:
    parsed = spec.parsed
    endpoint = _endpoint(spec.name, parsed)
    try:
        condition = None if parsed.condition is None else compile_condition(parsed.condition)
    except RouteCompileError as error:
        raise RouteCompileError(f"route {spec.name!r}: {error}") from None
    ttl_secs = spec.ttl_secs or config.ttl_secs
    return Route(
        spec.name,
        source_prefix(parsed.source),
        condition,
        endpoint.id if endpoint else UPSTREAM,
        spec.priority,
        None if ttl_secs < 0 else float(ttl_secs),
    )


def _endpoint(name: str, parsed: ParsedRoute) -> InputEndpoint | None:
    if parsed.sink_function is None:
        if parsed.sink_argument.lower() != UPSTREAM:
            raise RouteCompileError(f"route {name!r}: there is no endpoint {parsed.sink_argument!r}")
        return None
    if parsed.sink_function.lower() != "brokeredendpoint":
        raise RouteCompileError(f"route {name!r}: there is no endpoint {parsed.sink_function!r}")
    found = _INPUT_ARGUMENT.fullmatch(parsed.sink_argument)
    if found is None:
        raise RouteCompileError(
            f"route {name!r}: endpoint {parsed.sink_argument!r} is not of the form /modules/<module>/inputs/<input>"
        )
    return InputEndpoint(found[1], found[2])


def source_prefix(source: str) -> str:
    """Trailing `*` and `/` go, one `/` comes back; a `*` in the middle is an ordinary character."""
    return source.rstrip("*/").lower() + "/"
