"""Waiting for something to become true, with a bound."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], secs: float = 20) -> None:
    async with asyncio.timeout(secs):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)
