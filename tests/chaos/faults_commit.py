"""SIGKILL at the moments that the promise is about: between an input's arrival and its safety, and right after it.

One way is to die at the steps around a commit or an upload. The other stretches the moment. Another process holds the
write lock of the module's store, as a backup does; an input is then in the module's hands for as long as we like,
received and not yet safe, while its event loop goes on reading packets. Each change of the desired properties brings
some, which are done at once; their acknowledgements must wait for the input's all the same, because edgeHub takes any
PUBACK for the oldest unacknowledged packet's. A module that acknowledges the input, or lets another acknowledgement do
it, loses it to the SIGKILL that follows.
"""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from simulator.local_site import LocalSite
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.faults_process import die_at_steps, restarted
from tests.e2e.kill_steps import has_ended

_BEFORE_COMMIT: Final = ("seen_checked", "handled", "before_commit")
_UPLOAD_STEPS: Final = (
    "uploader_before_put",
    "uploader_after_put",
    "uploader_before_confirm",
    "uploader_after_confirm",
)
# The first inputs after a start are mostly repeats, which have no effect.
_PASSES: Final = 6
# A setting of each module whose exact value changes nothing that is stored, and its default.
_HARMLESS: Final = {
    "scorer": ("max_series", 10_000),
    "anomaly_router": ("max_series", 10_000),
    "uploader": ("slowest_link_bytes_per_sec", 16 * 1024),
}
_INPUT_SECS: Final = 15.0
# The lock ends well before SQLite's patience with it, five seconds.
_LOCK_SECS: Final = 3.0
_LOCKS: Final = 2


async def sigkill_around_a_commit(arena: Arena, part: str) -> None:
    """Once before it, once right after it, once before the acknowledgement."""
    steps = (arena.rng.choice(_BEFORE_COMMIT), "after_commit", "before_ack")
    await die_at_steps(arena, part, steps, passes=_PASSES)


async def sigkill_while_locked(arena: Arena, part: str) -> None:
    """Twice: lock the store, wait until the module has an input, change its settings some times, kill it, unlock."""
    supervisor = arena.site.supervisor
    for _ in range(_LOCKS):
        starts = supervisor.starts(part)
        async with locked_store(arena.site.folder.var(part) / f"{part}.db"):
            await wait_for_input(arena.site, part)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOCK_SECS):
                    await change_settings(arena, part)
            if supervisor.starts(part) != starts or not supervisor.send_signal(part, signal.SIGKILL):
                raise CellFailed(f"{part} has ended before it could be killed")
            arena.killed(part)
            await arena.until(partial(has_ended, arena.site, part, starts), f"{part} is dead")
        await restarted(arena, part, starts)
        await arena.site.wait_until_connected()
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
    """Some times, each time to another value."""
    setting, default = _HARMLESS[part]
    for _ in range(arena.rng.randint(3, 6)):
        await arena.site.set_desired(part, {setting: default + arena.rng.randint(1, 999)})
        await asyncio.sleep(arena.rng.uniform(0.05, 0.25))


CELLS: Final = (
    *(Cell(part, "sigkill while its store is locked", partial(sigkill_while_locked, part=part)) for part in MODULES),
    *(Cell(part, "sigkill around a commit", partial(sigkill_around_a_commit, part=part)) for part in MODULES),
    Cell("uploader", "sigkill around an upload", partial(die_at_steps, part="uploader", steps=_UPLOAD_STEPS, passes=1)),
)
