"""A module's disk is full: while it runs, when it is killed, when it starts; and then there is room again.

The level at which the disk is full decides what fails first: a log that cannot grow, a checkpoint, a new table page, or
a file that cannot be made at all.
"""

import asyncio
import signal
from typing import Final

from tests.chaos.arena import MODULES, Arena, Cell
from tests.chaos.small_disk import SmallDisk, on_small_disk, stopped
from tests.chaos.vitals import until_it_is_over, until_it_says

_FULL: Final = "disk_full"
_LEVELS: Final = (0, 4096, 16 * 1024, 64 * 1024, 256 * 1024)
_ROUNDS = 2
_STAYS_SECS = 1.0
_MAY_END: Final = "a start while its folder moves finds its lock held; one on a full disk can do nothing"


async def full_while_it_runs(arena: Arena, part: str) -> None:
    """Full at several levels, one after the other."""
    async with on_small_disk(arena, part) as disk:
        for level in arena.rng.sample(_LEVELS, _ROUNDS):
            disk.fill(level)
            await named(arena, part)
            await asyncio.sleep(_STAYS_SECS)
            await room_again(arena, part, disk)
            arena.note(f"{part} said {_FULL} with {level} bytes left, and went on")


async def killed_while_full(arena: Arena, part: str) -> None:
    async with on_small_disk(arena, part) as disk:
        disk.fill(arena.rng.choice(_LEVELS))
        await named(arena, part)
        starts = arena.site.supervisor.starts(part)
        if arena.site.supervisor.send_signal(part, signal.SIGKILL):
            arena.killed(part)
        await arena.until(lambda: arena.site.supervisor.starts(part) > starts, f"{part} is started again")
        disk.fill()
        await named(arena, part)
        await room_again(arena, part, disk)


async def full_when_it_starts(arena: Arena, part: str) -> None:
    async with on_small_disk(arena, part) as disk:
        async with stopped(arena, part):
            disk.fill()
        await named(arena, part)
        await room_again(arena, part, disk)


async def named(arena: Arena, part: str) -> None:
    await until_it_says(arena.site, part, _FULL)


async def room_again(arena: Arena, part: str, disk: SmallDisk) -> None:
    disk.free()
    await until_it_is_over(arena.site, part, _FULL)


def _cells(part: str) -> tuple[Cell, ...]:
    return (
        Cell(part, "disk_full", lambda arena: full_while_it_runs(arena, part), may_end=_MAY_END),
        Cell(part, "sigkill_while_disk_full", lambda arena: killed_while_full(arena, part), may_end=_MAY_END),
        Cell(part, "start_on_full_disk", lambda arena: full_when_it_starts(arena, part), may_end=_MAY_END),
    )


CELLS: Final[tuple[Cell, ...]] = tuple(cell for part in MODULES for cell in _cells(part))
