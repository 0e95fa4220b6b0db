"""One cell: fresh devices send, the fault is done, it ends, fresh rows must arrive, all settles, the oracle judges."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from simulator.local_site import LocalSite
from simulator.oracle import Verdict
from tests.chaos.arena import Arena, Cell, CellFailed
from tests.chaos.builds import Builds
from tests.chaos.evidence import Evidence
from tests.chaos.fleet import Fleet
from tests.chaos.results import CellResult
from tests.chaos.sites import SITES
from tests.e2e.pipeline import settle

_FLOWING_SECS = 30.0
_FLOWING_MESSAGES = 8
_FAULT_SECS = 60.0
_RECOVER_SECS = 60.0
_LOOK_SECS = 0.25
_SETTLE_AFTER_ERROR_SECS = 20.0
_LOOK_AFTER_ERROR_SECS = 20.0


@dataclass
class Ground:
    """A running site, and what was read back from its storage so far."""

    site: LocalSite
    folder: Path
    evidence: Evidence
    cells: int = 0
    ends: int = 0
    """Ends of processes that the cells before this one have answered for."""


@contextlib.asynccontextmanager
async def open_ground(
    kind: str, folder: Path, bundle: Path, builds: Builds = MappingProxyType({})
) -> AsyncIterator[Ground]:
    """`builds`: the parts that do not run the source but a build of it."""
    async with SITES[kind](folder, bundle, builds) as site:
        yield Ground(site, folder, Evidence(site, bundle))


async def run_cell(ground: Ground, cell: Cell, result: CellResult) -> None:
    """Fills in the result. Raises CellFailed or TimeoutError when the site does not come back from the fault.

    What is in storage is judged then too, and how the processes ended.
    """
    ground.cells += 1
    arena = Arena(
        ground.site,
        random.Random(f"{cell.name}/{result.seed}"),
        cell.name,
        log=result.log,
        prefix=f"c{ground.cells:04d}-",
    )
    _reseed(arena, result.seed)
    fleet = Fleet(ground.site, prefix=arena.prefix, seed=result.seed)
    ground.evidence.begin(fleet.prefix)
    try:
        ended_at = await _break(ground, arena, cell, fleet, result)
        await settle(ground.site)
        await _judge(ground, arena, fleet, ended_at, result)
    except Exception:
        await _judge_what_is_there(ground, arena, fleet, result)
        raise
    finally:
        note_ends(ground, cell, result)


def _reseed(arena: Arena, seed: int) -> None:
    """What the links draw comes from the cell's seed too, whatever went through them before."""
    for name, link in arena.site.links.items():
        link.reseed(random.Random(f"{arena.name}/{seed}/{name}").randrange(2**31))


async def _break(ground: Ground, arena: Arena, cell: Cell, fleet: Fleet, result: CellResult) -> float:
    """The fault while the fleet sends, and the way back; when the fault ended."""
    await fleet.start()
    try:
        ended_at = await _do(arena, cell, fleet)
        result.recover_secs = await _recover(ground, fleet, ended_at)
    finally:
        result.kills = arena.kills
        for link in ground.site.links.values():
            link.reset()
        await fleet.stop()
    return ended_at


async def _judge(ground: Ground, arena: Arena, fleet: Fleet, ended_at: float | None, result: CellResult) -> None:
    for since, until in arena.unsynced:
        fleet.ledger.demote(since, until)
    await ground.evidence.look()
    _conclude(ground.evidence.judge(fleet.ledger, ended_at), result)


async def _judge_what_is_there(ground: Ground, arena: Arena, fleet: Fleet, result: CellResult) -> None:
    """After an error: what was doubled or changed shows all the same. What is missing may still be on its way."""
    try:
        async with asyncio.timeout(_SETTLE_AFTER_ERROR_SECS):
            await settle(ground.site)
    except Exception as error:
        result.log.append(f"it has not settled ({error!r}): what is missing may be on its way")
    try:
        async with asyncio.timeout(_LOOK_AFTER_ERROR_SECS):
            await _judge(ground, arena, fleet, None, result)
    except Exception as error:
        result.log.append(f"it could not be judged: {error!r}")


def note_ends(ground: Ground, cell: Cell, result: CellResult) -> None:
    """A process that ended, by no signal or kill point of the cell and not with 0, is a problem where it must not."""
    ends, ground.ends = ground.site.supervisor.ends[ground.ends :], len(ground.site.supervisor.ends)
    unasked = [end for end in ends if end.exit_code and not end.was_asked_for]
    if ends:
        result.log.append(f"{len(ends)} processes ended, {len(unasked)} of them unasked")
    for end in unasked:
        (result.log if cell.lets_end(end.name) else result.problems).append(str(end))


def _conclude(verdict: Verdict, result: CellResult) -> None:
    """What has no place of its own in the last line is there with the problems, and fails the cell as well."""
    result.rows, result.promised, result.attempted = verdict.sent, verdict.promised, verdict.attempted
    result.missing = verdict.missing + verdict.not_fresh
    result.duplicated = verdict.duplicated + verdict.overwritten
    result.values_differ = sum(verdict.faults.values()) - result.missing - result.duplicated
    result.faults = verdict.faults
    if not verdict.intact:
        counts = ", ".join(f"{kind} {count}" for kind, count in verdict.faults.items())
        result.problems = [counts, *verdict.problems]


async def _do(arena: Arena, cell: Cell, fleet: Fleet) -> float:
    """The fault, while rows flow; when it ended, in the event loop's time."""
    await arena.until(lambda: len(fleet.ledger.promised()) >= _FLOWING_MESSAGES, "rows flow", _FLOWING_SECS)
    try:
        async with asyncio.timeout(_FAULT_SECS):
            await cell.run(arena)
    except TimeoutError:
        raise CellFailed(f"the fault is not over after {_FAULT_SECS:g} s") from None
    return asyncio.get_running_loop().time()


async def _recover(ground: Ground, fleet: Fleet, ended_at: float) -> float:
    """Seconds from the end of the fault until every device has a row in storage that it sent after it."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(_RECOVER_SECS):
            while True:
                await ground.evidence.look()
                if ground.evidence.has_fresh_rows(fleet.ledger, fleet.names, ended_at):
                    return clock() - ended_at
                await asyncio.sleep(_LOOK_SECS)
    except TimeoutError:
        raise CellFailed(f"no fresh row of some device in storage {_RECOVER_SECS:g} s after the fault") from None
