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


@dataclass
class Ground:
    """A running site, and what was read back from its storage so far."""

    site: LocalSite
    folder: Path
    evidence: Evidence
    cells: int = 0


@contextlib.asynccontextmanager
async def open_ground(
    kind: str, folder: Path, bundle: Path, builds: Builds = MappingProxyType({})
) -> AsyncIterator[Ground]:
    """`builds`: the parts that do not run the source but a build of it."""
    async with SITES[kind](folder, bundle, builds) as site:
        yield Ground(site, folder, Evidence(site, bundle))


async def run_cell(ground: Ground, cell: Cell, result: CellResult) -> None:
    """Fills in the result. Raises CellFailed or TimeoutError when the site does not come back from the fault."""
    ground.cells += 1
    arena = Arena(ground.site, random.Random(f"{cell.name}/{result.seed}"), cell.name, log=result.log)
    fleet = Fleet(ground.site, prefix=f"c{ground.cells:04d}-", seed=result.seed)
    ground.evidence.begin(fleet.prefix)
    await fleet.start()
    try:
        ended_at = await _do(arena, cell, fleet)
        result.recover_secs = await _recover(ground, fleet, ended_at)
    finally:
        result.kills = arena.kills
        for link in ground.site.links.values():
            link.reset()
        await fleet.stop()
    await settle(ground.site)
    for since, until in arena.unsynced:
        fleet.ledger.demote(since, until)
    await ground.evidence.look()
    _conclude(ground.evidence.judge(fleet.ledger, ended_at), result)


def _conclude(verdict: Verdict, result: CellResult) -> None:
    """What has no place of its own in the last line is there with the problems, and fails the cell as well."""
    result.rows, result.promised, result.attempted = verdict.sent, verdict.promised, verdict.attempted
    result.missing = verdict.missing + verdict.not_fresh
    result.duplicated = verdict.duplicated + verdict.overwritten
    result.values_differ = sum(verdict.faults.values()) - result.missing - result.duplicated
    result.problems = [f"{', '.join(f'{kind} {count}' for kind, count in verdict.faults.items())}", *verdict.problems]
    if verdict.intact:
        result.problems = []


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
