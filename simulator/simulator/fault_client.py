"""A client of the faults' HTTP API, which is toxiproxy's: for the command line."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from simulator.errors import UserError
from simulator.folders import StateFolder

_CALL_SECS = 10.0


class FaultClient:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    @classmethod
    def of_folder(cls, state: Path) -> "FaultClient":
        """Of the edge that runs there. Raises UserError when it was not started with --faults."""
        try:
            return cls(StateFolder(state).faults_url.read_text(encoding="ascii").strip())
        except OSError:
            raise UserError(
                f"no edge with fault proxies is running in {state}; start one with: edgeweir run --faults"
            ) from None

    async def proxies(self) -> dict[str, Any]:
        return dict(await self._call("GET", "/proxies"))

    async def add(self, link: str, toxic: dict[str, Any]) -> dict[str, Any]:
        return dict(await self._call("POST", f"/proxies/{quote(link, safe='')}/toxics", toxic))

    async def remove(self, link: str, toxic: str) -> None:
        await self._call("DELETE", f"/proxies/{quote(link, safe='')}/toxics/{quote(toxic, safe='')}")

    async def lose_response(self, link: str, rule: dict[str, Any]) -> None:
        await self._call("POST", f"/proxies/{quote(link, safe='')}/lost_responses", rule)

    async def reset(self) -> None:
        await self._call("POST", "/reset")

    async def _call(self, verb: str, path: str, body: object = None) -> Any:
        """Raises UserError with what the API says."""
        timeout = aiohttp.ClientTimeout(total=_CALL_SECS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(verb, f"{self._url}{path}", json=body) as response,
            ):
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UserError(f"{self._url} does not answer as the faults' API: {error or 'time-out'}") from None
        try:
            answer = json.loads(text) if text else None
        except json.JSONDecodeError:
            raise UserError(f"{self._url} does not answer as the faults' API: no JSON") from None
        if response.status >= 300:
            raise UserError(str(answer.get("error")) if isinstance(answer, dict) else f"status {response.status}")
        return answer
