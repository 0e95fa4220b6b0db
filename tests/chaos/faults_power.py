"""The power of the whole edge goes: edgeHub and all modules at one instant, each on a disk that forgets.

They come back by themselves, with another boot id. What edgeHub had acknowledged to devices and not yet written back is
gone; those rows are demoted to attempted. All else must be there once.
"""

import asyncio
import signal
from typing import Final

from simulator.local_site import EDGE_HUB
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.forgetful import ENVIRONMENT
from tests.chaos.forgetful_edge import boot_with_new_id, options_of, unsynced_since

SITE: Final = "forgetful"
_PARTS: Final = (EDGE_HUB, *MODULES)


async def power_cut(arena: Arena) -> None:
    """Once, somewhere in the flow of messages."""
    await _has_been_written_back(arena)
    await asyncio.sleep(arena.rng.uniform(0.0, 2.5))
    await cut(arena)


async def power_comes_and_goes(arena: Arena) -> None:
    """Two or three cuts; the later ones meet the edge while it starts, connects and publishes again what it kept."""
    await _has_been_written_back(arena)
    for _ in range(arena.rng.randint(2, 3)):
        await asyncio.sleep(arena.rng.uniform(0.1, 1.5))
        await cut(arena)


async def cut(arena: Arena) -> None:
    """Returns when the supervisor has started all of them again."""
    supervisor, state = arena.site.supervisor, arena.site.folder.path
    starts = {part: supervisor.starts(part) for part in _PARTS}
    # edgeHub first: from here on no module has anything acknowledged that edgeHub then forgets unnoticed.
    running = [part for part in _PARTS if supervisor.send_signal(part, signal.SIGSTOP)]
    await _is_stopped(arena, EDGE_HUB)
    since = unsynced_since(state)
    if since is None:
        raise CellFailed("edgeHub's disk has never been written back")
    boot_with_new_id(state)
    for part in _PARTS:
        arena.site.module_env.setdefault(part, {})[ENVIRONMENT] = str(options_of(part, arena.rng.randrange(1 << 31)))
        if supervisor.send_signal(part, signal.SIGKILL):
            arena.killed(part)
    # What edgeHub had acknowledged may still be on its way through the device's link and SDK; its next life has
    # acknowledged nothing yet when it starts.
    cut_at = asyncio.get_running_loop().time()
    await arena.until(lambda: supervisor.starts(EDGE_HUB) > starts[EDGE_HUB], "edgeHub starts again after the cut")
    arena.demote(since, asyncio.get_running_loop().time())
    arena.note(f"power cut; edgeHub lost up to {cut_at - since:.2f} s; running were {', '.join(running)}")
    await arena.until(
        lambda: all(supervisor.starts(part) > starts[part] for part in running), "the edge starts again after the cut"
    )


async def _is_stopped(arena: Arena, part: str) -> None:
    """SIGSTOP takes effect a little later; what edgeHub does until then must not escape the time that is demoted."""
    pid = arena.site.supervisor.pid(part)
    if pid is not None:
        await arena.until(lambda: _state_of(pid) in "TZX", f"{part} stands still")


def _state_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - one line of the kernel's
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


async def _has_been_written_back(arena: Arena) -> None:
    """Without it nothing would be known of what is lost. A site that has just started has never done it."""
    state = arena.site.folder.path
    await arena.until(lambda: unsynced_since(state) is not None, "edgeHub's disk is written back")


CELLS: Final = (
    Cell("site", "power cut", power_cut, site=SITE),
    Cell("site", "power comes and goes", power_comes_and_goes, site=SITE),
)
