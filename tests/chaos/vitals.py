"""What a module says about itself, asked over HTTP as an operator's probe does."""

import asyncio

import aiohttp

from simulator.local_site import LocalSite
from tests.chaos.arena import CellFailed

_CALL_SECS = 2.0
_LOOK_SECS = 0.05


async def reasons(site: LocalSite, module: str) -> frozenset[str] | None:
    """Its reason codes; None while it does not answer, or answers that it makes no progress."""
    timeout = aiohttp.ClientTimeout(total=_CALL_SECS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{site.http_url(module)}/healthz") as response,
        ):
            if response.status != 200:
                return None
            health = (await response.json())["health"]
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None
    return frozenset(health) if isinstance(health, dict) else frozenset()


async def until_it_says(site: LocalSite, module: str, reason: str, secs: float) -> None:
    """Raises CellFailed when it does not name this reason in time."""
    said: frozenset[str] | None = None
    try:
        async with asyncio.timeout(secs):
            while reason not in ((said := await reasons(site, module)) or ()):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(_LOOK_SECS)
    except TimeoutError:
        named = "nothing" if not said else ", ".join(sorted(said))
        raise CellFailed(f"{module} does not say {reason} within {secs:g} s but {named}") from None


async def until_it_is_over(site: LocalSite, module: str, reason: str, secs: float) -> None:
    """Until it runs and no longer names this reason. Raises CellFailed."""
    try:
        async with asyncio.timeout(secs):
            while (said := await reasons(site, module)) is None or reason in said:  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(_LOOK_SECS)
    except TimeoutError:
        raise CellFailed(f"{module} still says {reason} after {secs:g} s; {site.last_line(module)}") from None
