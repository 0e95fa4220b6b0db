"""Waits for something to become true, with a bound."""

import asyncio
from collections.abc import Callable

WAIT_SECS = 10.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECS):
        while not condition():  # noqa: ASYNC110 - the condition lies behind a socket, nothing can signal it
            await asyncio.sleep(0.005)
