"""What a cell makes of processes that ended while it ran."""

import signal
from types import SimpleNamespace
from typing import Any, cast

from simulator.supervisor import Ended
from tests.chaos.arena import Arena, Cell
from tests.chaos.cell import Ground, note_ends
from tests.chaos.results import CellResult

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
