"""The `$edgeHub` desired properties, read and checked as a whole."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.runtime.routing.errors import ConfigError, RouteSyntaxError
from simulator.runtime.routing.parser import ParsedRoute, parse_route

DEFAULT_PRIORITY = 2_000_000_000  # the lowest: 0 is the highest that a route can ask for
DEFAULT_TTL_SECS = 7200


@dataclass(frozen=True, slots=True)
class RouteSpec:
    name: str
    text: str
    parsed: ParsedRoute
    priority: int = DEFAULT_PRIORITY
    ttl_secs: int = 0  # 0: the global value counts


@dataclass(frozen=True, slots=True)
class HubConfig:
    routes: tuple[RouteSpec, ...]
    ttl_secs: int  # negative: never; 0: everything is expired at once


def default_config() -> HubConfig:
    """What a hub without any configuration does: everything goes upstream."""
    text = "FROM /* INTO $upstream"
    return HubConfig((RouteSpec("default", text, parse_route(text)),), DEFAULT_TTL_SECS)


def parse_hub_config(desired: Mapping[str, object]) -> HubConfig:
    """Raises ConfigError that names the offending key; nothing of a bad configuration is used."""
    minor = _schema_minor(desired.get("schemaVersion"))
    routes, storage = desired.get("routes"), desired.get("storeAndForwardConfiguration")
    if minor >= 1 and routes is None:
        raise ConfigError("routes: missing")
    if minor >= 1 and storage is None:
        raise ConfigError("storeAndForwardConfiguration: missing")
    if not isinstance(routes, dict | None):
        raise ConfigError("routes: not an object")
    specs = [spec for name, value in (routes or {}).items() if (spec := _route(name, value, minor)) is not None]
    return HubConfig(tuple(specs), _ttl_secs(storage))


def _schema_minor(version: object) -> int:
    found = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+){0,2}", version) if isinstance(version, str) else None
    if found is None:
        raise ConfigError(f"schemaVersion: {version!r} is no version such as '1.1'")
    if found[1] != "1" or int(found[2]) > 3:
        raise ConfigError(f"schemaVersion: {version} is not supported (1.0 to 1.3 are)")
    return int(found[2])


def _ttl_secs(storage: object) -> int:
    if storage is None:
        return DEFAULT_TTL_SECS
    if not isinstance(storage, dict):
        raise ConfigError("storeAndForwardConfiguration: not an object")
    ttl_secs = storage.get("timeToLiveSecs", DEFAULT_TTL_SECS)
    if not isinstance(ttl_secs, int) or isinstance(ttl_secs, bool):
        raise ConfigError("storeAndForwardConfiguration.timeToLiveSecs: not an integer")
    return ttl_secs


def _route(name: str, value: object, minor: int) -> RouteSpec | None:
    if isinstance(value, str):
        if not value.strip():
            if minor == 0:
                return None
            raise ConfigError(f"routes.{name}: empty")
        return RouteSpec(name, value, _parsed(name, value))
    if minor == 0 or not isinstance(value, dict):
        raise ConfigError(f"routes.{name}: not a string" + ("" if minor == 0 else " or an object"))
    text = value.get("route")
    if not isinstance(text, str):
        raise ConfigError(f"routes.{name}.route: missing")
    priority = _integer(name, value, "priority", DEFAULT_PRIORITY)
    if "priority" in value and not 0 <= priority <= 9:
        raise ConfigError(f"routes.{name}.priority: {priority} is not between 0 and 9")
    ttl_secs = _integer(name, value, "timeToLiveSecs", 0)
    if ttl_secs < 0:
        raise ConfigError(f"routes.{name}.timeToLiveSecs: {ttl_secs} is negative")
    return RouteSpec(name, text, _parsed(name, text), priority, ttl_secs)


def _integer(name: str, value: Mapping[str, object], key: str, default: int) -> int:
    found = value.get(key, default)
    if not isinstance(found, int) or isinstance(found, bool):
        raise ConfigError(f"routes.{name}.{key}: not an integer")
    return found


def _parsed(name: str, text: str) -> ParsedRoute:
    try:
        return parse_route(text)
    except RouteSyntaxError as error:
        raise ConfigError(f"routes.{name}: {error}") from None
