"""What the hub takes from a deployment manifest. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.runtime.config import RuntimeFailed

_DESIRED = "properties.desired"


@dataclass(frozen=True, slots=True)
class Manifest:
    desired: dict[str, dict[str, Any]]  # by module id, `$edgeAgent` and `$edgeHub` included
    modules: tuple[str, ...]  # what `$edgeAgent` would start
    max_clients: int | None


def read_manifest(document: Mapping[str, Any]) -> Manifest:
    """Raises RuntimeFailed for what is no deployment manifest."""
    content = document.get("modulesContent", document.get("content", {}).get("modulesContent"))
    if not isinstance(content, dict):
        raise RuntimeFailed("the manifest has no modulesContent; is it a template that was not expanded?")
    desired = {name: _desired_of(name, sections) for name, sections in content.items()}
    agent = desired.get("$edgeAgent", {})
    modules = agent.get("modules", {})
    hub = agent.get("systemModules", {}).get("edgeHub", {})
    return Manifest(desired, tuple(modules), _max_clients(hub))


def _desired_of(name: str, sections: object) -> dict[str, Any]:
    found = sections.get(_DESIRED, {}) if isinstance(sections, dict) else None
    if not isinstance(found, dict):
        raise RuntimeFailed(f"modulesContent.{name}.{_DESIRED} is not an object")
    return found


def _max_clients(hub: Mapping[str, Any]) -> int | None:
    value = hub.get("env", {}).get("MaxConnectedClients", {}).get("value")
    if value is None:
        return None
    if not str(value).isdigit():
        raise RuntimeFailed(f"edgeHub's MaxConnectedClients is {value!r}, not a number")
    return int(value)
