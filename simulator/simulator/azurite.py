"""Azurite, the storage emulator: one private server on a free loopback port, with an account of its own.

It writes its metadata late and on SIGTERM only, so it is never killed: an outage is made by stopping its traffic.
"""

import asyncio
import base64
import contextlib
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from simulator.azurite_setup import NODE, entry_point, install
from simulator.errors import UserError
from simulator.process import Child, LineSink, keep_nothing

_HOST = "127.0.0.1"
_START_SECS = 60.0
# It flushes its metadata on the way out.
_STOP_SECS = 30.0
_LISTENS = re.compile(r"successfully listens on http://[^:]+:(\d+)")


@dataclass(frozen=True)
class Account:
    name: str
    key: str

    @classmethod
    def random(cls) -> "Account":
        return cls(f"edge{secrets.token_hex(6)}", base64.b64encode(secrets.token_bytes(64)).decode())

    @classmethod
    def of_folder(cls, location: Path) -> "Account":
        """The account that the blobs in this folder belong to; made at the first call."""
        location.mkdir(parents=True, exist_ok=True)
        path = location / "account"
        if not path.exists():
            account = cls.random()
            path.touch(mode=0o600)
            path.write_text(f"{account.name}:{account.key}")
        return cls(*path.read_text().split(":", 1))

    def connection_string(self, port: int) -> str:
        """For whoever reaches the blob service on this loopback port, be it through a proxy."""
        endpoint = f"http://{_HOST}:{port}/{self.name}"
        return f"DefaultEndpointsProtocol=http;AccountName={self.name};AccountKey={self.key};BlobEndpoint={endpoint};"


@dataclass(frozen=True)
class Azurite:
    account: Account
    port: int

    @property
    def connection_string(self) -> str:
        return self.account.connection_string(self.port)


@contextlib.asynccontextmanager
async def run_azurite(root: Path, location: Path, *, sink: LineSink = keep_nothing) -> AsyncIterator[Azurite]:
    """A ready Azurite with its data in `location`; installed first when it is not. Raises UserError."""
    await asyncio.to_thread(install, root)
    account = await asyncio.to_thread(Account.of_folder, location)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def listen_for_port(line: str) -> None:
        if (match := _LISTENS.search(line)) and not port.done():
            port.set_result(int(match[1]))
        sink(line)

    child = await Child.start(
        "azurite",
        _command(root, location),
        {**os.environ, "AZURITE_ACCOUNTS": f"{account.name}:{account.key}"},
        sink=listen_for_port,
        cwd=location,
        when_orphaned=signal.SIGTERM,
    )
    try:
        yield Azurite(account, await _ready_port(child, port))
    finally:
        await child.stop(grace_secs=_STOP_SECS)


def _command(root: Path, location: Path) -> list[str | Path]:
    listen = ["--blobHost", _HOST, "--blobPort", "0"]
    return [NODE, entry_point(root), *listen, "--location", location.absolute(), "--disableTelemetry", "--silent"]


async def _ready_port(child: Child, port: asyncio.Future[int]) -> int:
    ended = asyncio.create_task(child.wait())
    try:
        await asyncio.wait({ended, port}, timeout=_START_SECS, return_when=asyncio.FIRST_COMPLETED)
        if port.done():
            return port.result()
        said = child.tail[-1] if child.tail else "it said nothing"
        raise UserError(f"Azurite did not start: {said}")
    finally:
        ended.cancel()
