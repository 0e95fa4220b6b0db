"""CONNECT's user name: `{hub}/{device}[/{module}]/?api-version=…&…` (edgeHub's MqttUsernameParser). Pure."""

from dataclasses import dataclass
from urllib.parse import unquote


class BadUsername(Exception):
    """edgeHub answers it with CONNACK 3."""


@dataclass(frozen=True, slots=True)
class Username:
    device: str
    module: str  # "" for a device
    api_version: str
    model_id: str | None

    @property
    def client_id(self) -> str:
        return f"{self.device}/{self.module}" if self.module else self.device


def parse_username(text: str) -> Username:
    """Raises BadUsername. The hub's host name in front is not looked at, as edgeHub does not."""
    parts = text.split("/")
    if len(parts) not in (3, 4):
        raise BadUsername(f"{len(parts)} parts instead of 3 or 4")
    last = parts[-1]
    if not last.startswith("?") and "api-version=" not in last:
        raise BadUsername("the last part is no query")
    query = _first_of_each(last.removeprefix("?"))
    if not query.get("api-version"):
        raise BadUsername("api-version is missing")
    device, module = parts[1], parts[2] if len(parts) == 4 else ""
    if not device or (len(parts) == 4 and not module):
        raise BadUsername("an id is empty")
    return Username(device, module, query["api-version"], query.get("model-id"))


def _first_of_each(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        values.setdefault(key, unquote(value))
    return values
