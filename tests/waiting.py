"""Waiting for something to become true, with a bound."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, secs: float = 10.0) -> None:
    """Raises TimeoutError when it does not become true in time."""
    async with asyncio.timeout(secs):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes, files or sockets
            await asyncio.sleep(0.01)
