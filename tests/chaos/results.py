"""What a chaos run has to say: a line per cell, a line per planted bug, and the last line. Travels as JSON."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

END: Final = "looked at once more in the end"
"""What stands in the place of a fault when a whole site is judged before it goes."""
_SHOWN_PROBLEMS = 8
_SHOWN_LOG_LINES = 30


class CellResult(msgspec.Struct, kw_only=True):
    """One cell. Row counts are those of the oracle; times in seconds; `recover_secs` is None where it never did."""

    part: str
    fault: str
    seed: int
    rows: int = 0
    promised: int = 0
    attempted: int = 0
    kills: int = 0
    missing: int = 0
    duplicated: int = 0
    values_differ: int = 0
    recover_secs: float | None = None
    secs: float = 0.0
    error: str = ""
    faults: dict[str, int] = {}
    """What the oracle counted, by its kinds."""
    problems: list[str] = []
    log: list[str] = []

    @property
    def name(self) -> str:
        return f"{self.part}/{self.fault}".replace(" ", "_")

    @property
    def passed(self) -> bool:
        return not (self.error or self.problems or self.missing or self.duplicated or self.values_differ)


class SabotageResult(msgspec.Struct, kw_only=True):
    """One planted bug: what the oracle said of it, nothing when it was missed."""

    name: str
    seed: int
    caught: bool
    cell: str = ""
    said: str = ""
    secs: float = 0.0
    error: str = ""


class RunResult(msgspec.Struct, kw_only=True):
    seed: int
    cells: list[CellResult] = []
    sabotage: list[SabotageResult] = []
    secs: float = 0.0
    reached: int = 0
    """Different cells that were run; `of` is how many there are."""
    of: int = 0
    commit: str = ""
    python: str = ""

    @property
    def passed(self) -> bool:
        caught = all(one.caught for one in self.sabotage)
        return bool(self.cells or self.sabotage) and all(cell.passed for cell in self.cells) and caught


def last_line(run: RunResult) -> str:
    """A cell that failed without a verdict has no figure of its own: `failed` is there when any cell has failed."""
    cells = run.cells
    drawn = [cell for cell in cells if cell.fault != END]
    failed = sum(not cell.passed for cell in cells)
    caught = sum(one.caught for one in run.sabotage)
    return (
        f"cells={len(drawn)} seeds={len({cell.seed for cell in drawn})} rows={sum(cell.rows for cell in cells)}"
        f" kills={sum(cell.kills for cell in cells)} missing={sum(cell.missing for cell in cells)}"
        f" duplicated={sum(cell.duplicated for cell in cells)}"
        f" values_differ={sum(cell.values_differ for cell in cells)}"
        f" sabotage_caught={caught}/{len(run.sabotage)}"
        f"{f' failed={failed}' if failed else ''}"
    )


def cell_line(cell: CellResult) -> str:
    verdict = "ok  " if cell.passed else "BAD "
    if cell.fault == END:
        return f"{verdict} {cell.name}"
    recovered = "never recovered" if cell.recover_secs is None else f"recovered in {cell.recover_secs:.1f} s"
    kills = f", {cell.kills} kills" if cell.kills else ""
    return f"{verdict} {cell.name:<48} {cell.rows:>5} rows{kills}, {recovered} (seed {cell.seed})"


def sabotage_line(one: SabotageResult) -> str:
    if one.caught:
        return f"ok   planted bug: {one.name} is caught by {one.cell} in {one.secs:.0f} s: {one.said} (seed {one.seed})"
    return f"BAD  planted bug: {one.name} was not caught in {one.secs:.0f} s {one.error} (seed {one.seed})"


def details(cell: CellResult) -> Iterable[str]:
    """What to read when a cell failed."""
    if cell.error:
        yield f"     {cell.error}"
    yield from (f"     {problem}" for problem in cell.problems[:_SHOWN_PROBLEMS])
    yield from (f"       {line}" for line in cell.log[-_SHOWN_LOG_LINES:])
    if cell.fault != END:
        yield f'     repeat: make chaos ARGS="--only {cell.name} --seed {cell.seed}"'


def median(values: Sequence[float]) -> float:
    """Of at least one value."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


ENCODER: Final = msgspec.json.Encoder()
