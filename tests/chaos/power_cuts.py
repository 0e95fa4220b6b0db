"""Thousands of power cuts: `python -m tests.chaos.power_cuts --seeds N`.

Seed 0 is the strict disk, which keeps nothing but what was synced; each other seed is a disk that also keeps some of
the rest. Every cut of every module is lived through. The last line counts; exit code 1: a promise was broken.
"""

import asyncio
import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from tests.chaos import cut_runs, cut_uploader
from tests.chaos.cut_runs import Broken, MakeBench, Step
from tests.chaos.cut_workloads import router_bench, router_steps, scorer_bench, scorer_steps

C = TypeVar("C", cut_runs.Cut, cut_uploader.UploaderCut)


@dataclass
class Tally:
    """`broken` has a line per cut after which a promise was not kept."""

    cuts: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.cuts += other.cuts
        self.broken += other.broken


def distinct(cuts: Iterable[C]) -> list[C]:
    """Without those that leave the same disk and the same world as the one before: right before a sync nothing differs
    from right after the last."""
    kept: list[C] = []
    for cut in cuts:
        if not kept or _left(kept[-1]) != _left(cut):
            kept.append(cut)
    return kept


def _left(cut: cut_runs.Cut | cut_uploader.UploaderCut) -> tuple[object, ...]:
    if isinstance(cut, cut_uploader.UploaderCut):
        return cut.image, cut.stored, cut.done
    return cut.image, cut.published, cut.done


def cut_everywhere(
    make_bench: MakeBench, steps: list[Step], folder: Path, *, seed: int | None, synchronous: str | None = None
) -> Tally:
    """One run of a scorer or router and every cut of it."""
    tally = Tally()
    recording = cut_runs.record(make_bench, steps, folder / "undisturbed", seed=seed, synchronous=synchronous)
    for number, cut in enumerate(distinct(recording.cuts)):
        rng = random.Random(f"{seed}/{number}")
        live = partial(cut_runs.live_through, recording, cut, folder / str(number), rng, synchronous=synchronous)
        try:
            live()
        except Exception as error:
            tally.broken.append(_line(number, cut.label, error))
        tally.cuts += 1
    return tally


async def cut_uploader_everywhere(
    folder: Path, *, seed: int | None, synchronous: str | None = None, messages: int = 6
) -> Tally:
    tally = Tally()
    given = cut_uploader.deliveries(messages)
    cuts = await cut_uploader.record(given, folder / "undisturbed", seed=seed, synchronous=synchronous)
    for number, cut in enumerate(distinct(cuts)):
        rng = random.Random(f"{seed}/{number}")
        try:
            await cut_uploader.live_through(given, cut, folder / str(number), rng, synchronous=synchronous)
        except Exception as error:
            tally.broken.append(_line(number, cut.label, error))
        tally.cuts += 1
    return tally


def _line(number: int, label: str, error: Exception) -> str:
    """A database that SQLite cannot read any more is a broken promise like any other."""
    kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
    return f"cut {number} ({label}): {kind}{error}"


def _scorer(folder: Path, seed: int | None) -> Tally:
    return cut_everywhere(scorer_bench(folder / "config"), scorer_steps(), folder, seed=seed)


def _router(folder: Path, seed: int | None) -> Tally:
    return cut_everywhere(router_bench(folder / "config"), router_steps(), folder, seed=seed)


def _uploader(folder: Path, seed: int | None) -> Tally:
    return asyncio.run(cut_uploader_everywhere(folder, seed=seed))


MODULES: Final[dict[str, Callable[[Path, int | None], Tally]]] = {
    "scorer": _scorer,
    "anomaly_router": _router,
    "uploader": _uploader,
}


def last_line(tally: Tally, seeds: int) -> str:
    """Cuts after which something was missing, was there twice, or went wrong in another way."""
    missing = sum("missing" in line for line in tally.broken)
    duplicated = sum("duplicated" in line or "published twice" in line for line in tally.broken)
    other = len(tally.broken) - missing - duplicated
    return f"cuts={tally.cuts} seeds={seeds} missing={missing} duplicated={duplicated} other={other}"


def main(
    seeds: Annotated[int, typer.Option(min=1, help="how many disks")] = 10,
    first: Annotated[int, typer.Option(help="the first seed; 0 is the strict disk")] = 0,
    only: Annotated[str | None, typer.Option(help=f"one of {', '.join(MODULES)}")] = None,
) -> None:
    """Cut the power at every sync point of every module."""
    logging.disable(logging.CRITICAL)
    everything = Tally()
    for seed in range(first, first + seeds):
        for module in [only] if only else MODULES:
            folder = Path(tempfile.mkdtemp(prefix="edgeweir-cuts-"))
            try:
                tally = MODULES[module](folder, seed or None)
            finally:
                shutil.rmtree(folder)
            everything.add(tally)
            for line in tally.broken:
                typer.echo(f"seed {seed} {module}: {line}")
    typer.echo(last_line(everything, seeds))
    raise typer.Exit(1 if everything.broken else 0)


if __name__ == "__main__":
    typer.run(main)
