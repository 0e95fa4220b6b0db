"""The runtime as a process of its own, which a test can kill and start again on the same folder."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from simulator.runtime.run_folder import remove_run_folder


class RuntimeProcess:
    """`async with RuntimeProcess(folder, manifest) as runtime`; `kill` is SIGKILL, `start` begins again."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, time_scale: float = 20) -> None:
        folder.mkdir(exist_ok=True)
        self._manifest = folder / "manifest.json"
        self._manifest.write_text(json.dumps(manifest))
        self._state = folder / "state"
        self._command = [sys.executable, "-m", "simulator.runtime", "--state", str(self._state)]
        self._command += ["--time-scale", str(time_scale)]
        self.ready: dict[str, Any] = {}

    def start(self, *, with_manifest: bool = True) -> None:
        arguments = ["--manifest", str(self._manifest)] if with_manifest else []
        self._process = subprocess.Popen([*self._command, *arguments], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.ready = json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._end(signal.SIGTERM)
        return self._process.returncode

    def _end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        remove_run_folder(self._state)  # a killed runtime leaves its sockets behind

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """The control API's JSON answer."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.ready["control_socket"])) as session,
            session.request(method, f"http://edge{path}", json=body) as answer,
        ):
            return await answer.json()

    @property
    def ca(self) -> str:
        return Path(self.ready["ca_file"]).read_text()

    async def key(self, path: str) -> str:
        """The primary key of an identity, which is made if it is new."""
        answer = await self.call("PUT", f"/devices/{path}")
        return str(answer["authentication"]["symmetricKey"]["primaryKey"])
