"""The proxy's time, replaceable so that an injected delay can be told without waiting for it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since any fixed instant; never goes back."""

    async def sleep(self, secs: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, secs: float) -> None:
        await asyncio.sleep(secs)
