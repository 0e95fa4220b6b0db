"""The chaos run as its user sees it, on one cell; its order of jobs; its page."""

import asyncio
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from tests.chaos.__main__ import Run
from tests.chaos.jobs import CellJob, EndJob, Rounds, matching
from tests.chaos.page import FIGURES, PAGE, Figures, gather, page_of
from tests.chaos.results import END, CellResult, RunResult, SabotageResult, details, last_line
from tests.e2e.pipeline import ROOT
from tests.waiting import until


async def started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos",
        *arguments,
        cwd=ROOT,
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def run(*arguments: str) -> tuple[int, list[str]]:
    process = await started(*arguments)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode().splitlines()


@pytest.mark.slow
async def test_one_cell_runs_from_the_command_line_and_the_last_line_sums_it_up() -> None:
    code, lines = await run("--only", "uploader-storage/response_lost_reset", "--seed", "5")
    assert code == 0, "\n".join(lines)
    figures = dict(pair.split("=") for pair in lines[-1].split())
    assert int(figures.pop("rows")) > 50
    assert figures == {
        "cells": "1",
        "seeds": "1",
        "kills": "0",
        "missing": "0",
        "duplicated": "0",
        "values_differ": "0",
        "sabotage_caught": "0/0",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_run_that_is_told_to_stop_ends_soon_with_its_lanes_and_sums_up(
    number: signal.Signals, code: int
) -> None:
    process = await started("--only", "uploader-storage/hangs", "--seed", "6")
    await until(lambda: lanes_of(process.pid), secs=60)
    lanes = lanes_of(process.pid)
    await asyncio.sleep(4)
    process.send_signal(number)
    output, _ = await asyncio.wait_for(process.communicate(), 25)
    lines = output.decode().splitlines()
    assert process.returncode == code, "\n".join(lines)
    assert lines[-1].startswith("cells=0 seeds=0 ")
    assert not any(lane.exists() for lane in lanes)
    shutil.rmtree(lines[-2].removeprefix("stopped; what the processes said is kept in "))


def lanes_of(pid: int) -> list[Path]:
    """Those that run, as folders of the kernel's."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    folders = [Path("/proc") / child for child in children]
    return [folder for folder in folders if b"tests.chaos.lane" in (folder / "cmdline").read_bytes()]


async def test_a_cell_that_does_not_exist_is_one_line_and_exit_code_2() -> None:
    code, lines = await run("--only", "no-such-cell")
    assert code == 2
    assert lines[0].startswith("chaos: no cell is called like no-such-cell; there are: scorer/")


def test_every_cell_has_its_turn_before_any_has_a_second() -> None:
    cells = [("a", "plain"), ("b", "forgetful"), ("c", "plain")]
    rounds = Rounds(cells, random.Random(1), rounds=2)
    taken = [rounds.take("plain") for _ in range(7)]
    assert [sorted(job.name for job in taken[start : start + 3] if job) for start in (0, 3)] == [list("abc")] * 2
    assert taken[6] is None


def test_a_lane_gets_cells_for_the_site_it_has_as_long_as_there_are_any() -> None:
    cells = [(f"p{n}", "plain") for n in range(4)] + [(f"f{n}", "forgetful") for n in range(4)]
    rounds = Rounds(cells, random.Random(3), rounds=1)
    kinds = [job.site for _ in range(8) if (job := rounds.take("forgetful"))]
    assert kinds == ["forgetful"] * 4 + ["plain"] * 4


def test_cells_that_must_not_be_left_out_begin_and_of_them_those_of_rare_sites() -> None:
    cells = [(f"p{n}", "plain") for n in range(20)] + [("f1", "forgetful"), ("f2", "forgetful")]
    rounds = Rounds(cells, random.Random(3), rounds=1, first={"f1", "f2", "p7"})
    names = [job.name for site in (None, None, "forgetful") if (job := rounds.take(site))]
    assert (sorted(names[:2]), names[2]) == (["f1", "f2"], "p7")


def test_one_seed_is_one_schedule() -> None:
    cells = [(name, "plain") for name in "abcdef"]

    def schedule(seed: int) -> list[CellJob | None]:
        rounds = Rounds(cells, random.Random(seed), rounds=1)
        return [rounds.take("plain") for _ in cells]

    assert schedule(7) == schedule(7) != schedule(8)


def test_a_given_seed_is_that_of_every_cell() -> None:
    rounds = Rounds([("a", "plain"), ("b", "plain")], random.Random(9), rounds=1, seed=42)
    assert [job.seed for _ in range(2) if (job := rounds.take(None))] == [42, 42]


def test_patterns_choose_by_any_part_of_a_name() -> None:
    names = ["scorer/kill", "uploader/kill", "uploader/stop"]
    assert matching(names, ["uploader"]) == names[1:]
    assert matching(names, ["scorer", "stop"]) == [names[0], names[2]]
    assert matching(names, []) == names


def _run(*cells: CellResult, caught: bool = True) -> RunResult:
    planted = SabotageResult(name="bug", seed=1, caught=caught)
    return RunResult(seed=1, cells=list(cells), sabotage=[planted], commit="abc", python="3.11")


def test_a_run_passes_only_when_every_cell_did_and_every_bug_was_caught() -> None:
    good = CellResult(part="a", fault="b", seed=1, rows=10, kills=2, recover_secs=1.0)
    assert _run(good).passed
    assert not _run(good, caught=False).passed
    assert not RunResult(seed=1).passed, "nothing was run"
    for bad in ({"missing": 1}, {"duplicated": 1}, {"values_differ": 1}, {"error": "x"}, {"problems": ["x"]}):
        assert not _run(good, msgspec.structs.replace(good, **bad)).passed


def test_a_failed_cell_says_how_to_repeat_it() -> None:
    failed = CellResult(part="a", fault="b c", seed=7, missing=1, problems=["x is nowhere"])
    assert list(details(failed))[-1].strip() == 'repeat: make chaos ARGS="--only a/b_c --seed 7"'


def test_the_last_line_has_every_figure() -> None:
    cell = CellResult(part="a", fault="b", seed=1, rows=10, kills=2, missing=3, duplicated=4, values_differ=5)
    assert last_line(_run(cell, cell, caught=False)) == (
        "cells=2 seeds=1 rows=20 kills=4 missing=6 duplicated=8 values_differ=10 sabotage_caught=0/1 failed=2"
    )


def test_the_last_line_does_not_look_clean_when_a_cell_failed_without_a_verdict() -> None:
    good = CellResult(part="a", fault="b", seed=1, rows=10, recover_secs=1.0)
    never = CellResult(part="a", fault="b", seed=2, error="did not come back")
    assert last_line(_run(good)).endswith(" sabotage_caught=1/1")
    assert last_line(_run(good, never)).endswith(" missing=0 duplicated=0 values_differ=0 sabotage_caught=1/1 failed=1")


def test_the_page_sums_the_runs_of_a_cell_and_shows_failures() -> None:
    good = CellResult(part="scorer", fault="kill", seed=1, rows=10, kills=2, recover_secs=1.0)
    never = CellResult(part="scorer", fault="kill", seed=2, rows=5, error="did not come back")
    page = page_of(gather([_run(good), _run(good, never, caught=False)], {"make x": "y=1"}))
    assert "| scorer | kill | 3 | 25 | 4 | 1 | 1.0 s | 1.0 s |" in page
    assert "| bug | **missed** |" in page
    assert "- `make x`  \n  `y=1`" in page


def test_the_page_is_in_step_with_its_figures() -> None:
    figures = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    assert PAGE.read_text(encoding="utf-8") == page_of(figures), "run: make docs"


def test_a_healthy_site_is_looked_at_once_more_before_it_is_given_up() -> None:
    cells = Rounds([("a", "plain"), ("b", "forgetful")], random.Random(1), rounds=1)
    run = Run(1, cells, [], secs=100.0, show=lambda line: None)
    first = run.next_job(0, None)
    assert isinstance(first, CellJob)
    assert run.next_job(0, first.site) == EndJob(first.site)
    second = run.next_job(0, None)
    assert isinstance(second, CellJob)
    assert second.site != first.site
    assert run.next_job(0, None) is None, "the site of a cell that failed is gone already"


def test_what_is_found_in_the_end_fails_the_run_and_is_no_cell() -> None:
    good = CellResult(part="a", fault="b", seed=1, rows=10)
    end = CellResult(part="plain site", fault=END, seed=0, problems=["a window is lost"])
    assert not _run(good, end).passed
    assert last_line(_run(good, end)).startswith("cells=1 seeds=1 rows=10 ")
    assert not any("repeat" in line for line in details(end))
