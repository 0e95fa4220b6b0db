"""One child process: started in a session of its own, read line by line, stopped for sure, gone with its parent."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from simulator import tether
from simulator.errors import UserError

LineSink = Callable[[str], None]
# A module has ten seconds after SIGTERM, as a container has.
STOP_GRACE_SECS = 10.0
_LINE_LIMIT_BYTES = 1024 * 1024
_KEPT_LINES = 40


def keep_nothing(line: str) -> None:
    """A sink for those who do not want the lines."""


class Child:
    """A running process. Its output lines go to `sink`, and the last of them stay in `tail`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, sink: LineSink) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process = process
        self._sink = sink
        self._reader = asyncio.create_task(self._read(), name=f"read {name}")

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        sink: LineSink = keep_nothing,
        cwd: Path | None = None,
        when_orphaned: signal.Signals = signal.SIGKILL,
    ) -> "Child":
        """Raises UserError when the command cannot be found."""
        wrapped = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(when_orphaned)), *command]
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, wrapped),
                env=dict(env),
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C goes to the foreground group; who stops when is the supervisor's decision.
                start_new_session=True,
                limit=_LINE_LIMIT_BYTES,
            )
        except OSError as error:
            raise UserError(f"{name} cannot be started: {error}") from None
        return cls(name, process, sink)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit code, once its last line has been read."""
        code = await self._process.wait()
        await asyncio.wait([self._reader])
        return code

    def signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    async def stop(self, *, grace_secs: float = STOP_GRACE_SECS) -> int:
        """SIGTERM, then SIGKILL to what is still there. Returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(asyncio.shield(self._process.wait()), grace_secs)
        except TimeoutError:
            self.kill()
            return await self._process.wait()
        finally:
            await asyncio.wait([self._reader], timeout=1)
            self._reader.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        stream = self._process.stdout
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line longer than the limit; what was read of it is gone
                raw = b"(a line too long to show)\n"
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip("\r\n")
            self.tail.append(line)
            self._sink(line)
