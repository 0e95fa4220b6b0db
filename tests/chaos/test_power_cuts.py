"""Power cuts at every sync point of every module; and that they would be noticed if the disk were not waited for."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cut_workloads import router_bench, router_steps, scorer_bench, scorer_steps
from tests.chaos.power_cuts import cut_everywhere, cut_uploader_everywhere

# None is the strict disk; the other also keeps some of what was not synced.
DISKS = (None, 1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A module that meets a ruined file says so at length."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", DISKS)
def test_a_scorer_loses_and_doubles_nothing_whenever_the_power_goes(tmp_path: Path, seed: int | None) -> None:
    tally = cut_everywhere(scorer_bench(tmp_path / "config"), scorer_steps(6), tmp_path, seed=seed)
    assert tally.cuts > 40
    assert tally.broken == []


@pytest.mark.parametrize("seed", DISKS)
def test_a_router_loses_and_doubles_nothing_whenever_the_power_goes(tmp_path: Path, seed: int | None) -> None:
    tally = cut_everywhere(router_bench(tmp_path / "config"), router_steps(6), tmp_path, seed=seed)
    assert tally.cuts > 40
    assert tally.broken == []


@pytest.mark.parametrize("seed", DISKS)
async def test_an_uploader_stores_each_row_once_whenever_the_power_goes(tmp_path: Path, seed: int | None) -> None:
    tally = await cut_uploader_everywhere(tmp_path, seed=seed, messages=3 if seed is None else 2)
    assert tally.cuts > 10
    assert tally.broken == []


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_a_store_that_does_not_wait_for_the_disk_is_found_out(tmp_path: Path, synchronous: str) -> None:
    scorer = cut_everywhere(
        scorer_bench(tmp_path / "config"), scorer_steps(5), tmp_path / "scorer", seed=None, synchronous=synchronous
    )
    router = cut_everywhere(
        router_bench(tmp_path / "policy"), router_steps(5), tmp_path / "router", seed=1, synchronous=synchronous
    )
    assert scorer.broken
    assert router.broken


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_a_spool_that_does_not_wait_for_the_disk_is_found_out(tmp_path: Path, synchronous: str) -> None:
    tally = await cut_uploader_everywhere(tmp_path, seed=None, synchronous=synchronous, messages=4)
    assert any("missing" in line for line in tally.broken)
