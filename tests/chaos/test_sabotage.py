"""Every planted bug fits today's source, has cells to show under, and one of them is caught from end to end."""

import contextlib
import random
from pathlib import Path

import pytest
from azure.iot.device.exceptions import ConnectionFailedError
from msgspec.structs import replace

from simulator.errors import UserError
from simulator.oracle import FAULT_KINDS
from tests.chaos import sabotage as sabotage_run
from tests.chaos.arena import Cell
from tests.chaos.bugs import ACKNOWLEDGES_EARLY, MORE, OVERWRITES_BLOBS, SABOTAGES, Sabotage
from tests.chaos.builds import patched
from tests.chaos.matrix import find_cell
from tests.chaos.results import CellResult, SabotageResult
from tests.chaos.sabotage import catch, find_sabotage
from tests.e2e.pipeline import train

each_sabotage = pytest.mark.parametrize("sabotage", [*SABOTAGES, *MORE], ids=lambda one: one.name)


@each_sabotage
def test_a_planted_bug_changes_todays_source(sabotage: Sabotage) -> None:
    assert patched(sabotage.build)


@each_sabotage
def test_a_planted_bug_is_judged_by_cells_of_the_honest_matrix_on_one_kind_of_site(sabotage: Sabotage) -> None:
    cells = [find_cell(name) for name in sabotage.cells]
    assert cells
    assert len({cell.site for cell in cells}) == 1


@each_sabotage
def test_a_planted_bug_shows_as_something_that_the_oracle_counts(sabotage: Sabotage) -> None:
    assert sabotage.shows in FAULT_KINDS


def test_noise_and_another_kind_of_fault_do_not_show_a_planted_bug() -> None:
    found = CellResult(part="a", fault="b", seed=1, problems=["x is created 2 times"])
    for faults in ({}, {"not_fresh": 3}, {"missing": 1}):
        assert not OVERWRITES_BLOBS.is_shown_by(replace(found, faults=faults))
    counted = replace(found, faults={"overwritten": 1})
    assert OVERWRITES_BLOBS.is_shown_by(counted)
    assert not OVERWRITES_BLOBS.is_shown_by(replace(counted, problems=["x is written without If-None-Match: *"]))


def test_there_are_at_least_six_planted_bugs_and_none_by_another_name() -> None:
    assert len(SABOTAGES) >= 6
    assert len({one.name for one in (*SABOTAGES, *MORE)}) == len(SABOTAGES) + len(MORE)
    assert find_sabotage("acknowledges_early") is ACKNOWLEDGES_EARLY
    with pytest.raises(LookupError, match="acknowledges_early"):
        find_sabotage("no such bug")


async def test_a_site_that_breaks_is_replaced_and_the_bug_is_looked_for_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[dict[str, int] | Exception] = [
        UserError("edgeHub does not answer"),
        ConnectionFailedError("not now"),
        {"not_fresh": 1},
        {"missing": 1},
    ]

    async def run_cell(ground: object, cell: Cell, found: CellResult) -> None:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        found.faults, found.problems = outcome, ["x"]

    monkeypatch.setattr(sabotage_run, "open_ground", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(sabotage_run, "run_cell", run_cell)
    result = SabotageResult(name=ACKNOWLEDGES_EARLY.name, seed=1, caught=False)
    (tmp_path / "site").mkdir()
    await catch(ACKNOWLEDGES_EARLY, tmp_path / "site", tmp_path, result, secs=20)
    assert result.caught, result
    assert not outcomes


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_module_that_acknowledges_early_is_caught_by_the_oracle(tmp_path: Path) -> None:
    bundle = await train(tmp_path)
    result = SabotageResult(name=ACKNOWLEDGES_EARLY.name, seed=random.randrange(1_000_000), caught=False)
    await catch(ACKNOWLEDGES_EARLY, tmp_path / "site", bundle, result, secs=120)
    assert result.caught, result
    assert "missing" in result.said
