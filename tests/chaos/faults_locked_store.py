"""A module that cannot get at its disk, whose settings change meanwhile, and that is killed before it could.

Another process holds the write lock of the module's store, as a backup does. An input is then in the module's hands
for as long as we like, received and not yet safe, while its event loop goes on reading packets. Each change of the
desired properties brings some, which are done at once; their acknowledgements must wait for the input's all the same,
because edgeHub takes any PUBACK for the oldest unacknowledged packet's. A module that acknowledges the input, or lets
another acknowledgement do it, loses it to the SIGKILL that follows.
"""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from simulator.local_site import LocalSite
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed

# A setting of each module whose exact value changes nothing that is stored, and its default.
_HARMLESS: Final = {
    "scorer": ("max_series", 10_000),
    "anomaly_router": ("max_series", 10_000),
    "uploader": ("slowest_link_bytes_per_sec", 16 * 1024),
}
_INPUT_SECS = 15.0
# The lock ends well before the module's own five seconds of patience with it do.
_LOCK_SECS = 3.0


async def sigkill_while_locked(arena: Arena, part: str) -> None:
    """Lock the store, wait until the module has an input, change its settings some times, kill it, unlock."""
    supervisor = arena.site.supervisor
    starts = supervisor.starts(part)
    async with locked_store(arena.site.folder.var(part) / f"{part}.db"):
        await wait_for_input(arena.site, part)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOCK_SECS):
                for _ in range(arena.rng.randint(3, 6)):
                    await change_settings(arena, part)
                    await asyncio.sleep(arena.rng.uniform(0.05, 0.25))
        if not supervisor.send_signal(part, signal.SIGKILL):
            raise CellFailed(f"{part} did not run")
        arena.killed(part)
        await arena.until(lambda: supervisor.starts(part) > starts or supervisor.pid(part) is None, f"{part} is dead")
    await arena.until(lambda: supervisor.starts(part) > starts, f"{part} starts again")
    await arena.site.set_desired(part, {_HARMLESS[part][0]: None})


@contextlib.asynccontextmanager
async def locked_store(path: Path) -> AsyncIterator[None]:
    """Nobody else writes to the database meanwhile."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)) as db:
        await asyncio.to_thread(db.execute, "BEGIN IMMEDIATE")
        try:
            yield
        finally:
            db.execute("ROLLBACK")


async def wait_for_input(site: LocalSite, part: str) -> None:
    """Until edgeHub has something for the module, which it then sends: there is room for one in its hands."""
    try:
        async with asyncio.timeout(_INPUT_SECS):
            while not await site.queued_for(part):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise CellFailed(f"no input came for {part} within {_INPUT_SECS:g} s") from None


async def change_settings(arena: Arena, part: str) -> None:
    setting, default = _HARMLESS[part]
    await arena.site.set_desired(part, {setting: default + arena.rng.randint(1, 999)})


def _cell(part: str) -> Cell:
    return Cell(part, "sigkill_while_locked", lambda arena: sigkill_while_locked(arena, part))


CELLS: tuple[Cell, ...] = tuple(_cell(part) for part in MODULES)
