"""What a module says about itself, asked over HTTP as an operator's probe does."""

import asyncio
from dataclasses import dataclass

import aiohttp

from simulator.local_site import LocalSite
from tests.chaos.arena import CellFailed

_CALL_SECS = 2.0
_LOOK_SECS = 0.05
_NAMED_WITHIN_SECS = 20.0
_OVER_WITHIN_SECS = 30.0


@dataclass(frozen=True)
class Health:
    """What a module answers; `works` while it makes progress."""

    works: bool
    reasons: frozenset[str]


async def health(site: LocalSite, module: str) -> Health | None:
    """None while it does not answer."""
    timeout = aiohttp.ClientTimeout(total=_CALL_SECS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{site.http_url(module)}/healthz") as response,
        ):
            named = (await response.json())["health"]
            return Health(response.status == 200, frozenset(named) if isinstance(named, dict) else frozenset())
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


async def until_it_says(site: LocalSite, module: str, reason: str, secs: float = _NAMED_WITHIN_SECS) -> None:
    """While it makes progress: it must not be restarted for it. Raises CellFailed when it does not in time."""
    said: Health | None = None
    try:
        async with asyncio.timeout(secs):
            while (said := await health(site, module)) is None or not said.works or reason not in said.reasons:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(_LOOK_SECS)
    except TimeoutError:
        named = ", ".join(sorted(said.reasons)) if said is not None and said.reasons else "nothing"
        raise CellFailed(f"{module} does not say {reason} within {secs:g} s but {named}") from None


async def until_it_is_over(site: LocalSite, module: str, reason: str, secs: float = _OVER_WITHIN_SECS) -> None:
    """Until it runs and no longer names this reason. Raises CellFailed."""
    try:
        async with asyncio.timeout(secs):
            while (said := await health(site, module)) is None or not said.works or reason in said.reasons:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(_LOOK_SECS)
    except TimeoutError:
        raise CellFailed(f"{module} still says {reason} after {secs:g} s; {site.last_line(module)}") from None
