"""What a demo does to a running site: each module is killed once, and storage goes away for a while."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Final

from simulator.fault_proxy import Down, Timeout, Toxic
from simulator.links import STORAGE
from simulator.local_site import LocalSite
from simulator.watch import Watch

# When each thing happens, as shares of the time of sending.
KILLS: Final = {"scorer": 0.15, "anomaly_router": 0.4, "uploader": 0.5}
_OUTAGE = (0.3, 0.6)
# So long may pass until a module is caught at work; after that it is killed all the same.
_CATCH_SHARE = 0.1
_LOOK_SECS = 0.02
_OUTAGES: Final[tuple[tuple[str, tuple[Toxic, ...]], ...]] = (
    ("no longer answers", (Timeout(timeout=0, stream="upstream"), Timeout(timeout=0))),
    ("refuses connections", (Down(),)),
)


class Troubles:
    """`note` is told what is done. `kills` and `outage_secs` count what has been."""

    def __init__(self, send_secs: float, note: Callable[[str], None]) -> None:
        self.kills = 0
        self.outage_secs = 0.0
        self._send_secs = send_secs
        self._note = note

    async def kill(self, site: LocalSite, watch: Watch, module: str) -> None:
        """Once, and in the midst of work when it can be caught there in time."""
        await asyncio.sleep(KILLS[module] * self._send_secs)
        busy = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_SHARE * self._send_secs):
                while not (busy := await watch.is_busy(module)):  # noqa: ASYNC110 - it happens in other processes
                    await asyncio.sleep(_LOOK_SECS)
        while not site.supervisor.send_signal(module, signal.SIGKILL):  # noqa: ASYNC110 - it may be cooling off
            await asyncio.sleep(0.2)
        self.kills += 1
        self._note(f"{module} is killed (SIGKILL){' at work' if busy else ''}")

    async def take_storage_away(self, site: LocalSite, watch: Watch) -> None:
        """First nothing moves on open connections, then they are refused: the two ways in which storage goes away."""
        link = site.links[STORAGE]
        first, last = (share * self._send_secs for share in _OUTAGE)
        await asyncio.sleep(first)
        began = time.monotonic()
        for text, toxics in _OUTAGES:
            link.reset()
            for toxic in toxics:
                link.add(toxic)
            watch.storage = text
            self._note(f"storage {text}")
            await asyncio.sleep((last - first) / len(_OUTAGES))
        link.reset()
        self.outage_secs = time.monotonic() - began
        watch.storage = "reachable"
        self._note(f"storage is back after {self.outage_secs:.0f} s")
