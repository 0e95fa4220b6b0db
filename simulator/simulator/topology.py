"""What is wrong with a deployment's routes, before a message is lost on them.

edgeHub is silent about most mistakes: it acknowledges and drops what no route wants, keeps messages for an input that
does not exist until they expire, and matches sources by prefix, so that `FROM /messages/*` also means every module.
These checks read the manifest alone. A route's condition is taken to hold, except the one idiom that keeps a route to
leaf devices: `NOT IS_DEFINED($connectionModuleId)`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from contract.ports import PORTS, UPSTREAM_ALLOWED, Ports

MIN_TIME_TO_LIVE_SECS: Final = 30 * 24 * 3600

_ROUTE = re.compile(
    r"^\s*(?:SELECT\s+\*\s+)?FROM\s+(?P<source>\S+)(?:\s+WHERE\s+(?P<condition>.+?))?\s+INTO\s+(?P<sink>.+?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_SINK = re.compile(r"""^BrokeredEndpoint\(\s*["']/modules/([^/"']+)/inputs/([^/"']+)["']\s*\)$""", re.IGNORECASE)
_LEAF_ONLY = re.compile(r"^\s*NOT\s+IS_DEFINED\(\s*\$connectionModuleId\s*\)\s*$", re.IGNORECASE)
_UPSTREAM = "$upstream"


class Fault(NamedTuple):
    """`code` is one of those in `find_faults`; `where` names the route, or the module and its port."""

    code: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.where}: {self.detail}"


class Route(NamedTuple):
    name: str
    source: str
    leaf_only: bool
    module: str  # the receiving module, or $upstream
    input: str
    time_to_live_secs: int

    def takes(self, source: str) -> bool:
        """edgeHub's rule: trailing '*' and '/' are cut, then the prefix is compared without regard to case."""
        prefix = self.source.rstrip("*/") + "/"
        return source.lower().startswith(prefix.lower()) and not (self.leaf_only and source.startswith("/messages/m"))


def output_source(module: str, output: str) -> str:
    return f"/messages/modules/{module}/outputs/{output}/"


LEAF_SOURCE: Final = "/messages/"


def find_faults(manifest: Mapping[str, Any], ports: Mapping[str, Ports] = PORTS) -> list[Fault]:
    """All faults of the manifest's routes; an empty list means that every message has a way and none has a leak.

    Codes: `unreadable_route`, `no_such_input`, `dead_end` (an output, or the devices, that no route takes), `unfed`
    (an input that no route feeds), `cycle`, `upstream_leak`, `expires_early`.
    """
    hub = manifest["modulesContent"]["$edgeHub"]["properties.desired"]
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    ports = {name: ports[name] for name in modules if name in ports}
    routes, faults = _read_routes(hub)
    edges = {(sender, route.module) for route in routes for sender, _ in _senders(route, ports) if sender}
    return [
        *faults,
        *_missing_inputs(routes, set(modules), ports),
        *_dead_ends(routes, ports),
        *_unfed(routes, ports),
        *(Fault("cycle", module, "its messages come back to it") for module in sorted(_on_a_cycle(edges))),
        *_leaks(routes, ports),
        *_early_expiry(routes),
    ]


def _read_routes(hub: Mapping[str, Any]) -> tuple[list[Route], list[Fault]]:
    inherited = int(hub.get("storeAndForwardConfiguration", {}).get("timeToLiveSecs", 7200))
    routes, faults = [], []
    for name, value in hub.get("routes", {}).items():
        spec = value if isinstance(value, Mapping) else {"route": value}
        match = _ROUTE.match(spec["route"])
        sink = _SINK.match(match["sink"]) if match else None
        if match is None or (sink is None and match["sink"].lower() != _UPSTREAM):
            faults.append(Fault("unreadable_route", name, spec["route"]))
            continue
        module, port = (sink[1], sink[2]) if sink else (_UPSTREAM, "")
        leaf_only = bool(_LEAF_ONLY.match(match["condition"] or ""))
        # A route's own time to live of 0 means the global one; a negative one is for ever.
        time_to_live = int(spec.get("timeToLiveSecs", 0)) or inherited
        routes.append(Route(name, match["source"], leaf_only, module, port, time_to_live))
    return routes, faults


def _senders(route: Route, ports: Mapping[str, Ports]) -> Iterator[tuple[str, str]]:
    """(module, output) pairs whose messages the route takes; ("", "") stands for the leaf devices."""
    if route.takes(LEAF_SOURCE):
        yield "", ""
    for module, (_, outputs) in ports.items():
        yield from ((module, output) for output in sorted(outputs) if route.takes(output_source(module, output)))


def _missing_inputs(routes: list[Route], modules: set[str], ports: Mapping[str, Ports]) -> Iterator[Fault]:
    for route in routes:
        if route.module == _UPSTREAM:
            continue
        if route.module not in modules:
            yield Fault("no_such_input", route.name, f"there is no module {route.module}")
        elif route.module in ports and route.input not in ports[route.module].inputs:
            yield Fault("no_such_input", route.name, f"{route.module} has no input {route.input}")


def _dead_ends(routes: list[Route], ports: Mapping[str, Ports]) -> Iterator[Fault]:
    taken = {sender for route in routes for sender in _senders(route, ports)}
    if ("", "") not in taken:
        yield Fault("dead_end", "devices", "no route takes the telemetry of leaf devices")
    for module, (_, outputs) in ports.items():
        for output in sorted(outputs):
            if (module, output) not in taken:
                yield Fault("dead_end", f"{module}/outputs/{output}", "no route takes it; edgeHub drops it silently")


def _unfed(routes: list[Route], ports: Mapping[str, Ports]) -> Iterator[Fault]:
    fed = {(route.module, route.input) for route in routes if any(True for _ in _senders(route, ports))}
    for module, (inputs, _) in ports.items():
        for name in sorted(inputs):
            if (module, name) not in fed:
                yield Fault("unfed", f"{module}/inputs/{name}", "no route feeds it")


def _on_a_cycle(edges: set[tuple[str, str]]) -> set[str]:
    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        frontier = {sink for source, sink in edges if source == start}
        while frontier:
            seen |= frontier
            frontier = {sink for source, sink in edges if source in frontier} - seen
        return seen

    return {module for module, _ in edges if module in reachable(module)}


def _leaks(routes: list[Route], ports: Mapping[str, Ports]) -> Iterator[Fault]:
    for route in routes:
        if route.module != _UPSTREAM:
            continue
        for module, output in _senders(route, ports):
            if (module, output) not in UPSTREAM_ALLOWED:
                sender = f"{module}/outputs/{output}" if module else "the devices' own telemetry"
                yield Fault("upstream_leak", route.name, f"{sender} would go to the cloud without a policy")
        if not route.source.lower().startswith("/messages/modules/"):
            yield Fault("upstream_leak", route.name, "a source that names no module takes whatever is added later")


def _early_expiry(routes: list[Route]) -> Iterator[Fault]:
    for route in routes:
        if route.module != _UPSTREAM and 0 <= route.time_to_live_secs < MIN_TIME_TO_LIVE_SECS:
            yield Fault("expires_early", route.name, f"{route.time_to_live_secs} s is less than 30 days")
