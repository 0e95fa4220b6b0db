"""The running local edge, asked over its control socket: twins, methods, identities, statistics.

The shapes are those of IoT Hub's service REST, so what works here works against a hub.
"""

import json
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import aiohttp

from simulator.errors import UserError

API_VERSION = "2021-04-12"
_CALL_SECS = 30.0


class Refusal(UserError):
    """The edge answered, and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """A client of one control socket. Every call raises UserError when no edge answers there."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def twin(self, device: str, module: str = "") -> dict[str, Any]:
        return cast(dict[str, Any], await self._call("GET", _twin_path(device, module)))

    async def set_desired(self, device: str, module: str, patch: dict[str, Any]) -> dict[str, Any]:
        """Merge into the desired properties; null deletes. Returns the twin."""
        body = {"properties": {"desired": patch}}
        return cast(dict[str, Any], await self._call("PATCH", _twin_path(device, module), body))

    async def call_method(
        self, device: str, module: str, name: str, payload: object = None, *, timeout_secs: int = 30
    ) -> tuple[int, Any]:
        """The method's own status and payload."""
        body = {
            "methodName": name,
            "payload": payload,
            "responseTimeoutInSeconds": timeout_secs,
            "connectTimeoutInSeconds": 0,
        }
        answer = await self._call("POST", f"{_twin_path(device, module)}/methods", body, timeout_secs + _CALL_SECS)
        return int(answer["status"]), answer.get("payload")

    async def create_device(self, device: str) -> str:
        """Make the identity when there is none; its primary key."""
        body = {"deviceId": device, "status": "enabled", "authentication": {"type": "sas"}}
        answer = await self._call("PUT", _identity_path(device, ""), body)
        return str(answer["authentication"]["symmetricKey"]["primaryKey"])

    async def identity(self, device: str, module: str = "") -> dict[str, Any]:
        """Its state and keys, as `authentication.symmetricKey`."""
        return cast(dict[str, Any], await self._call("GET", _identity_path(device, module)))

    async def set_enabled(self, device: str, module: str = "", *, enabled: bool) -> None:
        """A disabled identity is refused, and loses the connection that it has."""
        body = {"status": "enabled" if enabled else "disabled"}
        await self._call("PUT", _identity_path(device, module), body)

    async def set_keys(self, device: str, module: str = "", *, primary: str, secondary: str) -> None:
        """Tokens made with the keys before are worth nothing from now on."""
        body = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}}
        await self._call("PUT", _identity_path(device, module), body)

    async def module_environment(self, module: str) -> dict[str, str]:
        """The IOTEDGE_* variables of the module's process."""
        return cast(dict[str, str], await self._call("GET", f"/edgeweir/modules/{quote(module, safe='')}/environment"))

    async def stats(self) -> dict[str, Any]:
        return cast(dict[str, Any], await self._call("GET", "/edgeweir/stats"))

    async def _call(self, verb: str, path: str, body: object = None, timeout_secs: float = _CALL_SECS) -> Any:
        timeout = aiohttp.ClientTimeout(total=timeout_secs)
        # The runtime's run folder is a link to a short path, because a socket's path may hold 107 bytes only.
        connector = aiohttp.UnixConnector(path=str(self._socket.resolve()))
        url = f"http://edge{path}?api-version={API_VERSION}"
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(verb, url, json=body) as response,
            ):
                text = await response.text()
        except (aiohttp.ClientConnectionError, FileNotFoundError):
            state = self._socket.parent.parent
            raise UserError(f"no edge is running in {state}; start one with: edgeweir run") from None
        except (TimeoutError, aiohttp.ClientError) as error:
            raise UserError(f"the running edge did not answer: {error or 'time-out'}") from None
        if response.status >= 300:
            raise Refusal(response.status, _message(text) or f"{verb} {path} was answered with {response.status}")
        return json.loads(text) if text else None


def _twin_path(device: str, module: str) -> str:
    path = f"/twins/{quote(device, safe='')}"
    return f"{path}/modules/{quote(module, safe='')}" if module else path


def _identity_path(device: str, module: str) -> str:
    path = f"/devices/{quote(device, safe='')}"
    return f"{path}/modules/{quote(module, safe='')}" if module else path


def _message(text: str) -> str:
    try:
        document = json.loads(text)
        return str(document.get("Message") or document.get("message") or "").strip()
    except (json.JSONDecodeError, AttributeError):
        return text.strip()[:300]
