"""The runtime's kill points: the modules' syntax, and a runtime that dies where it is told to."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import edge_module.kill_points as of_modules
from simulator.process import Child
from simulator.runtime import kill_points as of_runtime
from simulator.runtime.run_folder import remove_run_folder


@pytest.mark.parametrize("text", ["after_commit", "after_commit:1", "after_commit:", "x:17"])
def test_the_runtime_reads_a_kill_point_as_the_modules_do(text: str) -> None:
    assert of_runtime.parse_kill_at(text) == of_modules.parse_kill_at(text)


@pytest.mark.parametrize("text", ["", ":3", "after_commit:0", "after_commit:-1", "after_commit:two", "a:1:2"])
def test_the_runtime_refuses_a_kill_point_as_the_modules_do(text: str) -> None:
    with pytest.raises(ValueError, match="expected STEP") as refused_by_modules:
        of_modules.parse_kill_at(text)
    with pytest.raises(ValueError, match="expected STEP") as refused_by_runtime:
        of_runtime.parse_kill_at(text)
    assert str(refused_by_runtime.value) == str(refused_by_modules.value)


def test_every_step_is_named_once() -> None:
    assert len(set(of_runtime.STEPS)) == len(of_runtime.STEPS)


async def test_a_runtime_that_is_told_to_die_at_its_first_commit_does(tmp_path: Path) -> None:
    runtime = await Child.start(
        "edgeHub",
        [sys.executable, "-m", "simulator.runtime", "--state", tmp_path],
        {**os.environ, of_runtime.VARIABLE: "after_commit:1"},
    )
    try:
        async with asyncio.timeout(20):
            assert await runtime.wait() == -signal.SIGKILL
        assert "kill point after_commit" in runtime.tail
    finally:
        await runtime.stop()
        remove_run_folder(tmp_path)
