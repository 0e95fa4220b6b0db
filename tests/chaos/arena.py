"""What one cell of the chaos matrix is, and what its fault may use.

A cell is a part and a fault. The fault is done, ended, and must return within some seconds; every choice it makes comes
from `arena.rng`, so that the cell's seed is its whole schedule.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from simulator.local_site import LocalSite

MODULES = ("scorer", "anomaly_router", "uploader")


@dataclass
class Arena:
    """One cell on a running site. Times are those of the running event loop, `asyncio.get_running_loop().time()`."""

    site: LocalSite
    rng: random.Random
    name: str = ""
    prefix: str = ""
    """How the names of the cell's devices begin."""
    log: list[str] = field(default_factory=list)
    kills: int = 0
    unsynced: list[tuple[float, float]] = field(default_factory=list)
    """Spans of time in which edgeHub's acknowledgements were not on its disk when the power went."""

    def note(self, text: str) -> None:
        """A line of the cell's log, shown when it fails."""
        self.log.append(text)

    def killed(self, part: str) -> None:
        self.kills += 1
        self.note(f"killed {part}")

    def demote(self, since: float, until: float) -> None:
        """What edgeHub acknowledged to a device within these times is attempted, no longer promised."""
        self.unsynced.append((since, until))

    async def runs(self, part: str) -> None:
        """Until there is a process of the part; none while it cools off."""
        await self.until(lambda: self.site.supervisor.pid(part) is not None, f"{part} runs")

    async def until(self, condition: Callable[[], object], what: str, secs: float = 30.0) -> None:
        """Raises CellFailed, naming `what`, when it does not become true in time."""

        async def asked() -> object:
            return condition()

        await self.until_asked(asked, what, secs)

    async def until_asked(self, condition: Callable[[], Awaitable[object]], what: str, secs: float = 30.0) -> None:
        """The same of what somebody else has to be asked."""
        try:
            async with asyncio.timeout(secs):
                while not await condition():  # noqa: ASYNC110 - what is waited for happens in other processes
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CellFailed(f"{what}: not within {secs:g} s") from None


class CellFailed(Exception):
    """The fault could not be done, or the site did not come back from it."""


Fault = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True)
class Cell:
    """`part` is a module, edgeHub, a link, or several joined by +."""

    part: str
    fault: str
    run: Fault
    site: str = "plain"
    """The kind of site that it needs: a name in `tests.chaos.sites.SITES`."""
    may_end: str = ""
    """Why a process of the part may end by itself under this fault; nothing says that it may not."""

    @property
    def name(self) -> str:
        """Without spaces: it is typed on command lines."""
        return f"{self.part}/{self.fault}".replace(" ", "_")

    def lets_end(self, process: str) -> bool:
        return bool(self.may_end) and process in self.part.split("+")
