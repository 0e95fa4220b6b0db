"""What a cell makes of processes that ended while it ran, and of an error."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from simulator.supervisor import Ended
from tests.chaos.arena import Arena, Cell, CellFailed
from tests.chaos.cell import Ground, note_ends, open_ground, run_cell
from tests.chaos.results import CellResult
from tests.e2e.pipeline import train

CRASH = Ended("scorer", 1, said=("Traceback", "oh"))
GONE = Ended("scorer", 0)
KILLED = Ended("scorer", -9, frozenset({signal.SIGKILL}))


async def nothing(arena: Arena) -> None:
    pass


def noted(*ends: Ended, may_end: str = "", part: str = "scorer", before: int = 0) -> CellResult:
    site: Any = SimpleNamespace(supervisor=SimpleNamespace(ends=ends))
    ground = Ground(site, cast("Any", None), cast("Any", None), ends=before)
    result = CellResult(part=part, fault="f", seed=1)
    note_ends(ground, Cell(part, "f", nothing, may_end=may_end), result)
    assert ground.ends == len(ends)
    return result


def test_a_process_that_crashed_fails_the_cell_and_says_how() -> None:
    result = noted(GONE, KILLED, CRASH)
    assert result.problems == ["scorer ended with exit code 1: last line oh"]
    assert result.log == ["3 processes ended, 1 of them unasked"]
    assert not result.passed


def test_what_the_cell_did_itself_is_no_problem() -> None:
    assert noted(GONE, KILLED, KILLED).passed


def test_only_the_part_of_a_cell_may_end_by_itself_and_only_where_it_says_so() -> None:
    assert noted(CRASH, may_end="its disk is full", part="scorer+edgeHub").passed
    assert not noted(CRASH, may_end="its disk is full", part="uploader").passed
    assert str(CRASH) in noted(CRASH, may_end="its disk is full").log


def test_each_end_is_one_cells() -> None:
    assert noted(CRASH, before=1).passed


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_cell_that_ends_in_an_error_is_judged_and_a_crash_in_it_is_told(tmp_path: Path) -> None:
    async def crash_and_fail(arena: Arena) -> None:
        pid = arena.site.supervisor.pid("uploader")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # not by the supervisor: nobody asked for it
        await arena.until(lambda: arena.site.supervisor.starts("uploader") > 1, "it is started again")
        raise CellFailed("the fault could not be done")

    bundle = await train(tmp_path)
    folder = tmp_path / "site"
    folder.mkdir()
    result = CellResult(part="uploader", fault="crash", seed=3)
    async with open_ground("plain", folder, bundle) as ground:
        with pytest.raises(CellFailed, match="could not be done"):
            await run_cell(ground, Cell("uploader", "crash", crash_and_fail), result)
    assert result.rows > 0, result
    assert (result.missing, result.duplicated, result.values_differ) == (0, 0, 0), result
    assert [problem.partition(":")[0] for problem in result.problems] == ["uploader was ended by SIGKILL"]
