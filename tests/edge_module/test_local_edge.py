"""Two modules in a chain behind the local edge runtime, fed by the official device SDK over TLS and SAS tokens."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.exceptions import ClientError

from simulator.runtime import LocalEdge, RuntimeConfig
from tests import waiting
from tests.edge_module.process import EchoProcess

until = partial(waiting.until, secs=40.0)

ROUTES = {
    "in": (
        'FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint("/modules/first/inputs/in")'
    ),
    "on": 'FROM /messages/modules/first/outputs/out INTO BrokeredEndpoint("/modules/second/inputs/in")',
    "up": "FROM /messages/modules/second/* INTO $upstream",
}


class Chain:
    def __init__(self, edge: LocalEdge, first: EchoProcess, second: EchoProcess) -> None:
        self.edge = edge
        self.first = first
        self.second = second

    def arrived(self) -> list[dict[str, Any]]:
        """What reached the cloud, repeats dropped by message id, in the order of the emitted numbers."""
        if not self.edge.upstream_file.exists():
            return []
        lines = [json.loads(line) for line in self.edge.upstream_file.read_text().splitlines()]
        once = {line["system"]["messageId"]: line for line in lines}
        return sorted(once.values(), key=lambda line: int(line["properties"]["n"]))

    def said(self) -> list[str]:
        """The devices' own words, through both modules."""
        return [json.loads(json.loads(line["body"])["said"])["said"] for line in self.arrived()]


@asynccontextmanager
async def sender(edge: LocalEdge, name: str) -> AsyncIterator[Callable[[int], Any]]:
    """Sends one message per call, and waits for edgeHub's acknowledgement."""
    connection_string = await edge.add_device(name)

    def make() -> IoTHubDeviceClient:
        client = IoTHubDeviceClient.create_from_connection_string(
            connection_string, server_verification_cert=edge.ca_file.read_text()
        )
        client.connect()
        return client

    client = await asyncio.to_thread(make)

    def send(number: int) -> None:
        message: Any = Message(f"{name}-{number}")  # type: ignore[no-untyped-call]
        message.message_id = str(number)
        client.send_message(message)

    try:
        yield lambda number: asyncio.to_thread(send, number)
    finally:
        # The SDK's shutdown sometimes trips over paho's own end of the connection; everything was acknowledged before.
        with contextlib.suppress(ClientError):
            await asyncio.to_thread(client.shutdown)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with LocalEdge(RuntimeConfig(state_dir=tmp_path / "edge", time_scale=20)) as edge:
        processes = {}
        for name in ("first", "second"):
            state_dir = tmp_path / name
            state_dir.mkdir()
            environment = await edge.add_module(name)
            processes[name] = EchoProcess(
                state_dir, hub_port=8883, ca_file=edge.ca_file, EDGEWEIR_SAS_TTL_SECS="2", **environment
            )
        edge.set_edge_hub_config(
            {
                "schemaVersion": "1.1",
                "routes": ROUTES,
                "storeAndForwardConfiguration": {"timeToLiveSecs": 2_592_000},
            }
        )
        chain = Chain(edge, processes["first"], processes["second"])
        try:
            yield chain
        finally:
            for process in processes.values():
                await process.kill()


async def test_everything_arrives_once_and_in_order_through_kills_stops_and_token_renewals(chain: Chain) -> None:
    await chain.first.start()
    await chain.second.start()
    async with sender(chain.edge, "pump") as send:
        for number in range(120):
            await send(number)
            if number == 20:
                await chain.first.kill()
                await chain.first.start()
            if number == 40:
                await chain.second.kill()
                await chain.second.start(EDGEWEIR_KILL_AT="after_commit:10")
            if number == 60:
                chain.first.send(signal.SIGSTOP)
            if number == 80:
                await asyncio.sleep(2)  # longer than the scaled time-out of 1.5 s: copies are on their way
                chain.first.send(signal.SIGCONT)
            if not chain.second.is_running:
                await chain.second.start()
        with contextlib.suppress(TimeoutError):
            await chain.second.wait(10)
        if not chain.second.is_running:
            await chain.second.start()
        await until(lambda: len(chain.arrived()) >= 120)
    assert chain.said() == [f"pump-{number}" for number in range(120)]
    assert [int(line["properties"]["n"]) for line in chain.arrived()] == list(range(1, 121))
    renewals = [line for line in chain.first.get("/metrics").splitlines() if "token_renewals_total" in line]
    assert renewals


async def test_twin_and_methods_work_through_the_runtime(chain: Chain) -> None:
    await chain.first.start()

    def settings() -> Any:
        return chain.edge.module_reported("first").get("settings", {})

    await until(lambda: settings().get("outcome") == "accepted")
    version = chain.edge.set_module_desired("first", {"copies": 2})
    await until(lambda: settings().get("version") == version)
    chain.edge.set_module_desired("first", {"copies": 11})
    await until(lambda: settings().get("outcome") == "refused")
    assert settings()["path"] == "$.copies"
    assert await chain.edge.invoke_method("first", "total") == (200, {"total": 0})
    assert await chain.edge.invoke_method("first", "fail", 1) == (418, {"error": "told to fail with 1"})
    health = chain.edge.module_reported("first")["health"]
    assert health["reasons"][0]["code"] == "bad_settings"
