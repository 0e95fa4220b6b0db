"""Whether the harness catches a planted bug: the faults are done to a site that runs it until the oracle complains.

    python -m tests.chaos.sabotage [NAME] [--secs 60] [--honest]

Only what the bug is known to show counts, said by the oracle of rows and writes. A site that does not come back says
nothing about the bug, and is replaced by a fresh one. `--honest` does the same to the source as it is, under the same
cells and seeds: then no problem of any kind must be found.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from simulator.devices import sdk_log
from tests.chaos.arena import Cell
from tests.chaos.bugs import MORE, SABOTAGES, Sabotage
from tests.chaos.builds import make_build
from tests.chaos.cell import Ground, open_ground, run_cell
from tests.chaos.matrix import find_cell
from tests.chaos.results import CellResult, SabotageResult, sabotage_line
from tests.e2e.pipeline import train

__all__ = ["SABOTAGES", "catch", "find_sabotage"]

_SEEDS: Final = 2**31


def find_sabotage(name: str) -> Sabotage:
    """Raises LookupError with what there is."""
    known = {sabotage.name: sabotage for sabotage in (*SABOTAGES, *MORE)}
    if name not in known:
        raise LookupError(f"there is no planted bug {name}; there are {', '.join(known)}")
    return known[name]


async def catch(
    sabotage: Sabotage, folder: Path, bundle: Path, result: SabotageResult, *, secs: float, honest: bool = False
) -> None:
    """Fills in the result. Begins no cell after `secs`. Raises PatchDoesNotApply when the source has changed.

    `honest` leaves the bug out: what is caught then is the harness's own fault.
    """
    build = make_build(sabotage.build, folder / "build")
    builds = {} if honest else dict.fromkeys(sabotage.parts, build)
    rng = random.Random(result.seed)
    ends = time.monotonic() + secs
    for number in itertools.count(1):
        cells = [find_cell(name) for name in sabotage.cells]
        site = folder / f"site-{number}"
        site.mkdir()
        try:
            async with open_ground(cells[0].site, site, bundle, builds) as ground:
                shown = (lambda found: bool(found.problems)) if honest else sabotage.is_shown_by
                await _until_caught(ground, cells, rng, result, ends, shown)
        except Exception as error:  # of the site, of its devices or of the fault: a fresh site, another seed
            result.error = f"{type(error).__name__}: {error}"
        if result.caught or time.monotonic() >= ends:
            return


async def _until_caught(
    ground: Ground,
    cells: Iterable[Cell],
    rng: random.Random,
    result: SabotageResult,
    ends: float,
    shown: Callable[[CellResult], bool],
) -> None:
    """Each cell in turn, with a drawn seed, again and again."""
    for cell in itertools.cycle(cells):
        if time.monotonic() >= ends:
            return
        found = CellResult(part=cell.part, fault=cell.fault, seed=rng.randrange(1, _SEEDS))
        await run_cell(ground, cell, found)
        if shown(found):
            result.caught, result.cell, result.said = True, found.name, "; ".join(found.problems[:2])
            return


def _honest_line(result: SabotageResult) -> str:
    if result.caught or result.error:
        return f"BAD  the source itself, under the cells of {result.name}: {result.cell} {result.said} {result.error}"
    return f"ok   the source itself, under the cells of {result.name}: nothing in {result.secs:.0f} s"


async def _main(names: list[str], secs: float, seed: int, honest: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="edgeweir-sabotage-") as name:
        folder = Path(name)
        bundle = await train(folder)
        caught = 0
        with sdk_log(folder):
            for number, sabotage in enumerate(map(find_sabotage, names)):
                began = time.monotonic()
                result = SabotageResult(name=sabotage.name, seed=seed + number, caught=False)
                await catch(sabotage, folder / sabotage.name, bundle, result, secs=secs, honest=honest)
                result.secs = time.monotonic() - began
                caught += result.caught
                typer.echo(_honest_line(result) if honest else sabotage_line(result))
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(shutil.rmtree, folder / sabotage.name)
    typer.echo(f"sabotage_caught={caught}/{len(names)}")
    return caught == (0 if honest else len(names))


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="planted bugs; without a name those that every run must catch")
    ] = None,
    secs: Annotated[float, typer.Option(help="how long each is looked for")] = 60.0,
    seed: Annotated[int | None, typer.Option(help="drawn and printed unless given")] = None,
    honest: Annotated[bool, typer.Option(help="leave the bug out: nothing must be caught")] = False,
) -> None:
    """Let the oracle catch builds with one planted bug each."""
    logging.basicConfig(level=logging.ERROR)
    seed = random.SystemRandom().randrange(1, _SEEDS) if seed is None else seed
    typer.echo(f"seed {seed}")
    fine = asyncio.run(_main(names or [one.name for one in SABOTAGES], secs, seed, honest))
    raise typer.Exit(0 if fine else 1)


if __name__ == "__main__":
    typer.run(main)
