"""Failing system calls of a process that runs: strace attaches, lets chosen calls fail, and lets go again.

Promises
- The process is never left stopped: the kernel lets go of it when strace ends, however strace ends.
- A call that is told to fail is not made at all, so only failures are injected, never an invented success: `retval=0`
  is used where "nothing was written" or "the peer has closed" is what zero means.
- strace counts calls per thread: `when=3` is the third such call of any one thread since it was attached.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HOW_TO_INSTALL = "strace is not installed: apt-get install strace"
_REFUSED = re.compile(r"ptrace\(.*\): (Operation not permitted|Permission denied|Function not implemented)")
_GONE = re.compile(r"No such process")
_END_SECS = 10.0


class NoStrace(Exception):
    """There is no strace on this machine."""


class TracingRefused(Exception):
    """The kernel lets nobody trace here; what strace said."""


class ProcessGone(Exception):
    """There is no such process to attach to."""


@dataclass(frozen=True)
class Injection:
    """What strace is asked for: `call` fails as `how` says (`error=EIO`, `retval=0`, `delay_enter=200ms`).

    `when` is strace's expression: `3` is the third call, `1+` every one. With `paths`, only calls about these files.
    """

    call: str
    how: str
    when: str = "1"
    paths: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.call}:{self.how}:when={self.when}"

    def arguments(self) -> list[str]:
        of_paths = [argument for path in self.paths for argument in ("-P", str(path))]
        return ["-e", f"trace={self.call}", "-e", f"inject={self}", *of_paths]


class Trace:
    """strace at work on one process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.injected = 0
        self.lines: list[str] = []
        self.injection = asyncio.Event()
        self._process = process
        self._reader = asyncio.create_task(self._read(), name=f"strace {process.pid}")

    @property
    def ended(self) -> bool:
        return self._reader.done()

    async def wait_injected(self, secs: float) -> bool:
        """Whether a call has failed within this time, or before the process was gone."""
        waiter = asyncio.create_task(self.injection.wait())
        try:
            await asyncio.wait({waiter, self._reader}, timeout=secs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        return self.injected > 0

    async def detach(self) -> None:
        """End strace; the process runs on. Raises TracingRefused or ProcessGone when it never got hold of it."""
        await _end(self._process)
        await self._reader
        said = "\n".join(self.lines)
        if refused := _REFUSED.search(said):
            raise TracingRefused(f"tracing is refused here ({refused[0]}): run where ptrace is permitted")
        if not self.injected and _GONE.search(said):
            raise ProcessGone(said)

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            if line.endswith("(INJECTED)") or "(DELAYED)" in line:
                self.injected += 1
                self.injection.set()
            elif line.startswith("strace:"):
                self.lines.append(line)


@contextlib.asynccontextmanager
async def injecting(pid: int, injection: Injection) -> AsyncIterator[Trace]:
    """Calls of this process fail while the block runs. Raises NoStrace, TracingRefused or ProcessGone."""
    trace = Trace(await _strace(["-f", "-q", "-p", str(pid), *injection.arguments()]))
    try:
        yield trace
    finally:
        await trace.detach()


async def count_calls(pid: int, secs: float) -> dict[str, int]:
    """Which system calls the process makes in this time, and how many of each."""
    process = await _strace(["-f", "-q", "-c", "-U", "calls,name", "-p", str(pid)])
    said = asyncio.create_task(process.communicate())
    await asyncio.wait({said}, timeout=secs)
    await _end(process)
    text = (await said)[1].decode(errors="replace")
    if refused := _REFUSED.search(text):
        raise TracingRefused(f"tracing is refused here ({refused[0]}): run where ptrace is permitted")
    if _GONE.search(text):
        raise ProcessGone(text.strip())
    found = re.findall(r"^\s*(\d+) (\w+)$", text, re.MULTILINE)
    return {name: int(calls) for calls, name in found if name != "total"}


def require_strace() -> str:
    """Where it is. Raises NoStrace with the line that says how to install it."""
    path = shutil.which("strace")
    if path is None:
        raise NoStrace(HOW_TO_INSTALL)
    return path


async def _strace(arguments: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        require_strace(),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """strace ends, and with it a child that it makes while it starts: that would keep our end of its output open."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECS):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
