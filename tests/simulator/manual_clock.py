"""A clock that moves only when a test moves it."""

import asyncio


class ManualClock:
    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, secs: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + secs, woken))
        await woken

    @property
    def waits(self) -> list[float]:
        """For which instants somebody sleeps, the earliest first."""
        return sorted(until for until, woken in self._sleepers if not woken.done())

    def advance(self, secs: float) -> None:
        self._now += secs
        for until, woken in self._sleepers:
            if until <= self._now and not woken.done():
                woken.set_result(None)
        self._sleepers = [(until, woken) for until, woken in self._sleepers if not woken.done()]
