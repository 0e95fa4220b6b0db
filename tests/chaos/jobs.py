"""What the run asks of a lane, one JSON line per job."""

import random
from collections.abc import Collection, Iterable, Sequence

import msgspec

PLAIN = "plain"


class CellJob(msgspec.Struct, frozen=True, tag="cell"):
    """`site` is the kind of site it needs; a lane keeps its site as long as the kind stays."""

    name: str
    seed: int
    site: str = PLAIN


class SabotageJob(msgspec.Struct, frozen=True, tag="sabotage"):
    name: str
    seed: int
    secs: float


class EndJob(msgspec.Struct, frozen=True, tag="end"):
    """Look once more at a site that is not needed any more: what is still open closes, and nothing comes late."""

    site: str


Job = CellJob | SabotageJob | EndJob


class Rounds:
    """Cells in a drawn order, each with a drawn seed, again and again: first every cell once.

    Those named in `first` begin a round, and of them those whose kind of site is rare: a run that ends before its first
    round is over has done them.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, str]],
        rng: random.Random,
        *,
        rounds: int | None,
        seed: int | None = None,
        first: Collection[str] = (),
    ) -> None:
        """`cells` are (name, kind of site); `rounds` None means until nobody asks; `seed` is given to every cell."""
        self._cells = cells
        self._rng = rng
        self._seed = seed
        self._first = first
        self._rounds_left = rounds
        self._waiting: list[CellJob] = []

    def take(self, site: str | None) -> CellJob | None:
        """A job for a lane whose site is of this kind; another kind when there is none."""
        if not self._waiting:
            self._waiting = self._next_round()
        if not self._waiting:
            return None
        job = next((one for one in self._waiting if one.site == site), self._waiting[0])
        self._waiting.remove(job)
        return job

    def _next_round(self) -> list[CellJob]:
        if self._rounds_left == 0:
            return []
        if self._rounds_left is not None:
            self._rounds_left -= 1
        drawn = [self._rng.randrange(1, 2**31) for _ in self._cells]
        jobs = [
            CellJob(name, number if self._seed is None else self._seed, site)
            for (name, site), number in zip(self._cells, drawn, strict=True)
        ]
        self._rng.shuffle(jobs)
        return sorted(jobs, key=lambda job: (job.name not in self._first, job.site == PLAIN))


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those that contain one of the patterns; all without patterns."""
    return [name for name in names if not patterns or any(pattern in name for pattern in patterns)]
