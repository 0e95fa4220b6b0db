"""A lane: a process that runs one job after another and keeps its site from cell to cell.

    python -m tests.chaos.lane --folder FOLDER --bundle BUNDLE

Jobs come as lines on standard input, results go as lines to standard output. A site that a cell has left broken is
torn down, and its folder kept; the next cell gets a new one.
"""

import asyncio
import contextlib
import logging
import shutil
import sys
import time
import traceback
from pathlib import Path

import msgspec
import typer

from simulator.devices import sdk_log
from tests.chaos.cell import Ground, open_ground, run_cell
from tests.chaos.jobs import CellJob, EndJob, Job, SabotageJob
from tests.chaos.matrix import find_cell
from tests.chaos.results import ENCODER, END, CellResult, SabotageResult
from tests.chaos.sabotage import catch, find_sabotage

_CELL_SECS = 200.0
_SABOTAGE_GRACE_SECS = 60.0


class Lane:
    def __init__(self, folder: Path, bundle: Path) -> None:
        self._folder = folder
        self._bundle = bundle
        self._ground: Ground | None = None
        self._kind = ""
        self._stack = contextlib.AsyncExitStack()
        self._sites = 0

    async def run(self, job: Job) -> CellResult | SabotageResult:
        began = time.monotonic()
        result: CellResult | SabotageResult
        match job:
            case CellJob():
                result = await self._cell(job)
            case SabotageJob():
                result = await self._sabotage(job)
            case EndJob():
                result = await self._end(job)
        result.secs = time.monotonic() - began
        return result

    async def close(self, *, keep_folder: bool = False) -> None:
        """Stop the site; its folder goes too, unless somebody has to look at it."""
        ground, self._ground = self._ground, None
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()
        if ground is not None and not keep_folder:
            await asyncio.to_thread(shutil.rmtree, ground.folder, ignore_errors=True)

    async def _cell(self, job: CellJob) -> CellResult:
        cell = find_cell(job.name)
        result = CellResult(part=cell.part, fault=cell.fault, seed=job.seed)
        try:
            async with asyncio.timeout(_CELL_SECS):
                ground = await self._ground_of(job.site)
                await run_cell(ground, cell, result)
        except Exception as error:
            result.error = f"{type(error).__name__}: {error}"
            result.log += traceback.format_exc().splitlines()[-6:]
        if not result.passed:
            await self._keep(result)
        return result

    async def _end(self, job: EndJob) -> CellResult:
        """The site is closed afterwards: it was told to close what others keep open."""
        result = CellResult(part=f"{job.site} site", fault=END, seed=0)
        try:
            if self._ground is not None:
                async with asyncio.timeout(_CELL_SECS):
                    result.problems = await self._ground.evidence.finish()
        except Exception as error:
            result.error = f"{type(error).__name__}: {error}"
        if result.passed:
            await self.close()
        else:
            await self._keep(result)
        return result

    async def _keep(self, result: CellResult) -> None:
        if self._ground is not None:
            result.log.append(f"logs of all processes: {self._ground.folder}/edge/logs")
        await self.close(keep_folder=True)

    async def _ground_of(self, kind: str) -> Ground:
        if self._ground is None or self._kind != kind:
            await self.close()
            self._sites += 1
            folder = self._folder / f"site-{self._sites}"
            folder.mkdir(parents=True)
            self._ground = await self._stack.enter_async_context(open_ground(kind, folder, self._bundle))
            self._kind = kind
        return self._ground

    async def _sabotage(self, job: SabotageJob) -> SabotageResult:
        await self.close()
        folder = self._folder / f"sabotage-{job.name}"
        result = SabotageResult(name=job.name, seed=job.seed, caught=False)
        try:
            async with asyncio.timeout(job.secs + _SABOTAGE_GRACE_SECS):
                await catch(find_sabotage(job.name), folder, self._bundle, result, secs=job.secs)
        except Exception as error:
            result.error = f"{type(error).__name__}: {error}"
        if result.caught:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return result


async def serve(folder: Path, bundle: Path) -> None:
    """Until standard input ends."""
    lane = Lane(folder, bundle)
    with sdk_log(folder):
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                result = await lane.run(msgspec.json.decode(line, type=Job))
                sys.stdout.write(ENCODER.encode(result).decode() + "\n")
                sys.stdout.flush()
        finally:
            await lane.close()


def main(folder: Path = typer.Option(...), bundle: Path = typer.Option(...)) -> None:  # noqa: B008 - typer's way
    logging.basicConfig(level=logging.ERROR)
    folder.mkdir(parents=True)
    asyncio.run(serve(folder, bundle))


if __name__ == "__main__":
    typer.run(main)
