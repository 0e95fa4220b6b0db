"""The chaos run: `make chaos`, or `python -m tests.chaos --help`.

Three lanes, each a process with a site of its own, take cells in a drawn order until the time is over; the planted bugs
come first. The seed of the run is drawn and printed; it decides the order and the seed of every cell.
"""

import asyncio
import contextlib
import itertools
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec
import typer

from tests.chaos.jobs import CellJob, EndJob, Job, Rounds, SabotageJob, matching
from tests.chaos.matrix import CELLS
from tests.chaos.results import (
    ENCODER,
    END,
    CellResult,
    RunResult,
    SabotageResult,
    cell_line,
    details,
    last_line,
    sabotage_line,
)
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.small_disk import enter_namespace
from tests.e2e.pipeline import ROOT, train

_FOLDER = ROOT / "build" / "chaos"
_LANES = 3
_ENDED_BY_SIGNAL = 128
_SABOTAGE_SECS = 90.0
# A job that has begun is finished: the last ones of a run start this long before its end.
_LAST_START_SECS = 35.0
# Longer than any job and the end of its site may take: a lane that is silent for so long hangs.
_ANSWER_SECS = 300.0
_LANE_END_SECS = 60.0
_LANE_STOP_SECS = 15.0
_LINE_LIMIT_BYTES = 16 * 1024 * 1024


class Run:
    """Hands out jobs, gathers results and shows them."""

    def __init__(self, seed: int, cells: Rounds, sabotage: Sequence[str], *, secs: float, show: Callable[[str], None]):
        self.result = RunResult(seed=seed, of=len(CELLS), python=platform.python_version(), commit=_commit())
        self._rng = random.Random(f"sabotage/{seed}")
        self._cells = cells
        self._sabotage = list(sabotage)
        self._ends = time.monotonic() + secs - _LAST_START_SECS
        self._show = show
        self._held: dict[int, Job | None] = {}

    def next_job(self, lane: int, site: str | None) -> Job | None:
        """For a lane with a healthy site of this kind: before that is given up, it is looked at once more."""
        if lane in self._held:
            return self._held.pop(lane)
        job = self._choose(lane, site)
        if site is not None and not (isinstance(job, CellJob) and job.site == site):
            self._held[lane] = job
            return EndJob(site)
        return job

    def _choose(self, lane: int, site: str | None) -> Job | None:
        """Planted bugs go to the last lane, before its cells; no cell is begun when the time is over."""
        if self._sabotage and lane == _LANES - 1:
            return SabotageJob(self._sabotage.pop(0), self._rng.randrange(1, 2**31), _SABOTAGE_SECS)
        return self._cells.take(site) if time.monotonic() < self._ends else None

    def done(self, result: CellResult | SabotageResult) -> None:
        if isinstance(result, SabotageResult):
            self.result.sabotage.append(result)
            self._show(sabotage_line(result))
            return
        self.result.cells.append(result)
        self._show(cell_line(result))
        if not result.passed:
            for line in details(result):
                self._show(line)


async def run_lane(lane: int, run: Run, folder: Path, bundle: Path) -> None:
    """One process, fed with jobs until there are none. A lane that dies fails its job; the next has a new process."""
    site: str | None = None
    job = run.next_job(lane, site)
    for life in itertools.count(1):
        if job is None:
            return
        home = folder / f"life-{life}"
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.lane", "--folder", str(home), "--bundle", str(bundle)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_LIMIT_BYTES,
                # Who is told to stop is the run, from a terminal or not; it tells its lanes.
                start_new_session=True,
            )
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_exit(partial(_end, process))
                while job is not None:
                    line = await _ask(process, job)
                    if not line:
                        run.done(_died(job, log.name))
                        job = run.next_job(lane, None)
                        break
                    result = _read(line, job)
                    run.done(result)
                    # A lane gives up the site of a cell that failed.
                    is_healthy = isinstance(result, CellResult) and result.passed
                    site = job.site if isinstance(job, CellJob) and is_healthy else None
                    job = run.next_job(lane, site)


async def _ask(process: asyncio.subprocess.Process, job: Job) -> bytes:
    """Its answer; nothing when it has ended, or does not answer at all."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError, TimeoutError):
        process.stdin.write(ENCODER.encode(job) + b"\n")
        await process.stdin.drain()
        return await asyncio.wait_for(process.stdout.readline(), _ANSWER_SECS)
    return b""


def _read(line: bytes, job: Job) -> CellResult | SabotageResult:
    if isinstance(job, SabotageJob):
        return msgspec.json.decode(line, type=SabotageResult)
    return msgspec.json.decode(line, type=CellResult)


async def _end(
    process: asyncio.subprocess.Process,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """A closed standard input ends a lane after its job, an interrupt at once; it takes its processes with it."""
    assert process.stdin is not None
    process.stdin.close()
    if kind is not None and process.returncode is None:
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _LANE_END_SECS if kind is None else _LANE_STOP_SECS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _died(job: Job, log: str) -> CellResult | SabotageResult:
    error = f"the lane ended; see {log}"
    if isinstance(job, SabotageJob):
        return SabotageResult(name=job.name, seed=job.seed, caught=False, error=error)
    if isinstance(job, EndJob):
        return CellResult(part=f"{job.site} site", fault=END, seed=0, error=error)
    cell = CELLS[job.name]
    return CellResult(part=cell.part, fault=cell.fault, seed=job.seed, error=error)


async def run_all(run: Run, folder: Path) -> None:
    """SIGTERM cancels it, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    bundle = await train(folder)
    async with asyncio.TaskGroup() as group:
        for lane in range(_LANES):
            group.create_task(run_lane(lane, run, folder / f"lane-{lane + 1}", bundle))
    run.result.secs = time.monotonic() - began
    run.result.reached = len({cell.name for cell in run.result.cells} & CELLS.keys())


def _commit() -> str:
    """Of the clone, "" where there is none."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def main(
    minutes: Annotated[float, typer.Option(help="how long to go on, set-up included")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="of the run; with --only: of its cells")] = None,
    only: Annotated[list[str] | None, typer.Option(help="cells whose name contains this, once each")] = None,
    sabotage: Annotated[bool, typer.Option(help="let planted bugs be caught first")] = True,
) -> None:
    """Break the pipeline in every way there is, and count what was lost, doubled or changed."""
    if missing := [tool for tool in ("strace",) if shutil.which(tool) is None]:
        typer.echo(f"chaos: {missing[0]} is not installed; as root: apt-get install {missing[0]}", err=True)
        raise typer.Exit(2)
    seed = random.SystemRandom().randrange(1, 2**31) if seed is None else seed
    names = matching(CELLS, only or ())
    if not names:
        typer.echo(f"chaos: no cell is called like {', '.join(only or ())}; there are: {', '.join(CELLS)}", err=True)
        raise typer.Exit(2)
    folder = _FOLDER / f"{seed}-{os.getpid()}"
    cells = Rounds(
        [(name, CELLS[name].site) for name in names],
        random.Random(f"cells/{seed}"),
        rounds=1 if only else None,
        seed=seed if only else None,
        # The control that makes catching a planted bug worth anything: the source itself passes the same cells.
        first={cell for one in SABOTAGES for cell in one.cells},
    )
    planted = [one.name for one in SABOTAGES] if sabotage and not only else []
    run = Run(seed, cells, planted, secs=minutes * 60, show=typer.echo)
    typer.echo(f"seed {seed}: {len(names)} cells, {len(planted)} planted bugs; the same order and seeds again with")
    typer.echo(f'  make chaos ARGS="--seed {seed}{"".join(f" --only {one}" for one in only or ())}"')
    folder.mkdir(parents=True)
    try:
        asyncio.run(run_all(run, folder))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        typer.echo(f"stopped; what the processes said is kept in {folder}")
        typer.echo(last_line(run.result))
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise typer.Exit(_ENDED_BY_SIGNAL + number) from None
    shutil.rmtree(folder) if run.result.passed else typer.echo(f"what the processes said is kept in {folder}")
    results = _FOLDER / f"{seed}.json"
    results.write_bytes(msgspec.json.format(ENCODER.encode(run.result)))
    typer.echo(f"{run.result.reached} of {run.result.of} cells in {run.result.secs:.0f} s; results in {results}")
    typer.echo(last_line(run.result))
    raise typer.Exit(0 if run.result.passed else 1)


if __name__ == "__main__":
    enter_namespace("tests.chaos")
    typer.run(main)
