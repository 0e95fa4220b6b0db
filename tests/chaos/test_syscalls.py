"""strace does to a process what it is asked for, and lets it go. What modules make of it: tests/edge_module."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chaos.call_failures import FAILURES, NOT_INJECTED
from tests.chaos.tracing import Injection, NoStrace, ProcessGone, count_calls, injecting, require_strace

try:
    require_strace()
except NoStrace as missing:
    # In `make test` only: it runs on machines that have no more than Python, make and git. Refused tracing is an error.
    pytest.skip(str(missing), allow_module_level=True)

_READS = """
import os
while True:
    try:
        os.pread(0, 1, 0)
    except OSError as error:
        print(error.errno)
"""
_SECS = 15.0


async def test_one_call_fails_once_as_asked_and_the_process_runs_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (tmp_path / "file").open("rb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", _READS, stdin=file, stdout=asyncio.subprocess.PIPE
        )
    try:
        async with injecting(process.pid, Injection("pread64", "error=EIO", "3")) as trace:
            assert await trace.wait_injected(_SECS)
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), _SECS) == b"5\n"
        assert trace.injected == 1
        assert (await count_calls(process.pid, 0.2))["pread64"] > 0
    finally:
        process.kill()
        await process.wait()
    with pytest.raises(ProcessGone):
        await count_calls(process.pid, _SECS)


def test_no_call_is_both_injected_and_left_out() -> None:
    assert not set(FAILURES) & set(NOT_INJECTED)
