"""Writes docs/reliability.md from what chaos runs have measured.

    python -m tests.chaos.page RESULT.json ...        gather these runs into docs/reliability.json, and write the page
    python -m tests.chaos.page --other COMMAND=FILE   keep what this command printed last, from a file of its output
    python -m tests.chaos.page                        write the page again from docs/reliability.json

A test holds the page and the figures together.
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from tests.chaos.matrix import CELLS
from tests.chaos.results import END, CellResult, RunResult, SabotageResult, last_line, median

ROOT: Final = Path(__file__).parent.parent.parent
FIGURES: Final = ROOT / "docs" / "reliability.json"
PAGE: Final = ROOT / "docs" / "reliability.md"
TEXTS: Final = Path(__file__).parent / "page.toml"


class CellFigures(msgspec.Struct, kw_only=True):
    """All runs of one cell together."""

    part: str
    fault: str
    runs: int
    rows: int
    kills: int
    failed: int
    recover_median_secs: float
    recover_max_secs: float


class RunFigures(msgspec.Struct, kw_only=True):
    seed: int
    commit: str
    python: str
    minutes: float
    last_line: str


class Figures(msgspec.Struct, kw_only=True):
    """`others` are last lines of further harnesses, by the command that printed them."""

    runs: list[RunFigures]
    cells: list[CellFigures]
    sabotage: list[SabotageResult]
    others: dict[str, str] = {}
    unreached: list[str] = []
    """Cells that none of the runs came to."""


def gather(runs: Sequence[RunResult], others: dict[str, str], names: Iterable[str] = ()) -> Figures:
    """Of at least one run. Planted bugs are those of the last run that had some; `names` are those of all cells."""
    by_name: dict[str, list[CellResult]] = {}
    for run in runs:
        for cell in (one for one in run.cells if one.fault != END):
            by_name.setdefault(cell.name, []).append(cell)
    planted = [run.sabotage for run in runs if run.sabotage]
    return Figures(
        runs=[
            RunFigures(
                seed=run.seed,
                commit=run.commit,
                python=run.python,
                minutes=round(run.secs / 60, 1),
                last_line=last_line(run),
            )
            for run in runs
        ],
        cells=[_figures_of(cells) for _, cells in sorted(by_name.items())],
        sabotage=planted[-1] if planted else [],
        others=others,
        unreached=sorted(set(names) - by_name.keys()),
    )


def _figures_of(cells: Sequence[CellResult]) -> CellFigures:
    recovered = [cell.recover_secs for cell in cells if cell.recover_secs is not None]
    return CellFigures(
        part=cells[0].part,
        fault=cells[0].fault,
        runs=len(cells),
        rows=sum(cell.rows for cell in cells),
        kills=sum(cell.kills for cell in cells),
        failed=sum(not cell.passed for cell in cells),
        recover_median_secs=round(median(recovered), 1) if recovered else -1.0,
        recover_max_secs=round(max(recovered), 1) if recovered else -1.0,
    )


def render(figures: Figures, texts: dict[str, str], findings: Sequence[dict[str, str]]) -> str:
    return "\n".join(
        [
            texts["head"].strip(),
            "",
            *_runs(figures.runs),
            "",
            texts["cells"].strip(),
            "",
            *_matrix(figures.cells),
            "",
            f"Not reached in these runs: {', '.join(figures.unreached) or 'none'}.",
            "",
            texts["sabotage"].strip(),
            "",
            *_sabotage(figures.sabotage),
            "",
            texts["others"].strip(),
            "",
            *(f"- `{command}`  \n  `{line}`" for command, line in figures.others.items()),
            "",
            texts["findings"].strip(),
            "",
            *(f"{number}. **{one['what']}** {one['then']}" for number, one in enumerate(findings, start=1)),
            "",
            texts["limits"].strip(),
            "",
        ]
    )


def _runs(runs: Iterable[RunFigures]) -> Iterable[str]:
    yield from ("| run | commit | Python | minutes | |", "|---|---|---|---|---|")
    for run in runs:
        yield f"| `--seed {run.seed}` | {run.commit} | {run.python} | {run.minutes:g} | `{run.last_line}` |"


def _matrix(cells: Iterable[CellFigures]) -> Iterable[str]:
    yield from (
        "| part | fault | times | rows | kills | failed | recovered in, median | longest |",
        "|---|---|---|---|---|---|---|---|",
    )
    for cell in cells:
        yield (
            f"| {cell.part} | {cell.fault.replace(' ', '_')} | {cell.runs} | {cell.rows:,} | {cell.kills}"
            f" | {cell.failed} | {_secs(cell.recover_median_secs)} | {_secs(cell.recover_max_secs)} |"
        )


def _secs(secs: float) -> str:
    return "never" if secs < 0 else f"{secs:.1f} s"


def _sabotage(planted: Iterable[SabotageResult]) -> Iterable[str]:
    yield from ("| planted bug | caught by | after | what the oracle said first |", "|---|---|---|---|")
    for one in planted:
        caught = one.cell if one.caught else "**missed**"
        yield f"| {one.name} | {caught} | {one.secs:.0f} s | {one.said.replace('|', '/')} |"


def page_of(figures: Figures) -> str:
    document = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    return render(figures, document["texts"], document["findings"])


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="results of chaos runs, build/chaos/SEED.json")] = None,
    other: Annotated[list[str] | None, typer.Option(help="COMMAND=FILE: a command, and a file of its output")] = None,
) -> None:
    """Write docs/reliability.md."""
    before = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    said = (one.rpartition("=")[::2] for one in other or ())
    others = before.others | {command: _last_line(Path(file)) for command, file in said}
    figures = msgspec.structs.replace(before, others=others)
    if files:
        figures = gather([msgspec.json.decode(file.read_bytes(), type=RunResult) for file in files], others, CELLS)
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    PAGE.write_text(page_of(figures), encoding="utf-8")
    typer.echo(f"wrote docs/{PAGE.name}")


def _last_line(file: Path) -> str:
    return next(line for line in reversed(file.read_text(encoding="utf-8").splitlines()) if "=" in line)


if __name__ == "__main__":
    typer.run(main)
