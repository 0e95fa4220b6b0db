"""The echo module as a process of its own, against a hub on a free port."""

import asyncio
import os
import signal
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path

KEY = b64encode(b"0123456789abcdef0123456789abcdef").decode()


class EchoProcess:
    def __init__(self, state_dir: Path, *, hub_port: int, ca_file: Path, **extra: str) -> None:
        self.state_dir = state_dir
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "EdgeHubConnectionString": (
                "HostName=hub.example;GatewayHostName=127.0.0.1;DeviceId=edge;ModuleId=echo;SharedAccessKey=" + KEY
            ),
            "EdgeModuleCACertificateFile": str(ca_file),
            "EDGEWEIR_STATE_DIR": str(state_dir),
            "EDGEWEIR_HUB_PORT": str(hub_port),
            "EDGEWEIR_HTTP_HOST": "127.0.0.1",
            "EDGEWEIR_HTTP_PORT": "0",
            "EDGEWEIR_TIME_SCALE": "20",
            "RuntimeLogLevel": "debug",
            **extra,
        }
        self.process: asyncio.subprocess.Process | None = None
        self.log_file = state_dir.parent / f"{state_dir.name}.log"

    async def start(self, **extra: str) -> None:
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.edge_module.echo",
                env={**self.environment, **extra},
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def get(self, path: str, *, port: int | str = "") -> str:
        """Ask the newest process's health server, on the port that it logged unless given."""
        port = port or self.log().rsplit("http_port=", 1)[1].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return str(response.read().decode())

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def wait(self, secs: float = 15.0) -> int:
        assert self.process is not None
        async with asyncio.timeout(secs):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.is_running:
            self.send(signal.SIGKILL)
            await self.wait()
