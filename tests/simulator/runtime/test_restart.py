"""What survives kill -9 of the runtime: acknowledged messages, sessions, twins, identities, address, certificates."""

import asyncio
import base64
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.runtime.codec import Connack, Connect, Packet, Parser, Puback, Publish, Suback, Subscribe, encode
from simulator.runtime.sas import make_token
from tests.simulator.runtime.conftest import ROUTES
from tests.simulator.runtime.process import RuntimeProcess

MANIFEST = {
    "modulesContent": {
        "$edgeAgent": {"properties.desired": {"modules": {"m": {}}}},
        "$edgeHub": {"properties.desired": ROUTES},
        "m": {"properties.desired": {"limit": 3}},
    }
}
HOST = "local-hub.azure-devices.net"


class Client:
    """A bare client of a runtime in another process."""

    def __init__(self, runtime: RuntimeProcess, client_id: str, key: str) -> None:
        self._runtime, self.client_id, self._key = runtime, client_id, base64.b64decode(key)
        self._parser = Parser()
        self._packets: list[Packet] = []

    async def connect(self) -> Connack:
        context = ssl.create_default_context(cafile=self._runtime.ready["ca_file"])
        self._reader, self.writer = await asyncio.open_connection(
            self._runtime.ready["gateway_host"], 8883, ssl=context
        )
        uri = f"{HOST}/devices/" + self.client_id.replace("/", "/modules/")
        token = make_token(self._key, uri, int(time.time()) + 3600)
        self.send(Connect(self.client_id, f"{HOST}/{self.client_id}/?api-version=2021-04-12", token.encode()))
        answer = await self.next()
        assert isinstance(answer, Connack)
        return answer

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(map(encode, packets)))

    async def next(self) -> Packet:
        async with asyncio.timeout(15):
            while not self._packets:
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError
                self._packets = self._parser.feed(data)[::-1]
        return self._packets.pop()

    async def close(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


async def publish_until_killed(client: Client, runtime: RuntimeProcess, kill_after: int) -> set[int]:
    """Publishes numbered messages, twenty in flight; returns what was acknowledged before the kill."""
    acknowledged: set[int] = set()
    sent = 0
    try:
        while True:
            while sent - len(acknowledged) < 20:
                sent += 1
                client.send(Publish("devices/leaf/messages/events/", b"%d" % sent, 1, sent))
            packet = await client.next()
            if isinstance(packet, Puback):
                acknowledged.add(packet.packet_id)
            if len(acknowledged) == kill_after:
                runtime.kill()
    except OSError:
        return acknowledged


@pytest.mark.parametrize("kill_after", [1, 300])
async def test_every_acknowledged_message_survives_kill_9_in_order(tmp_path: Path, kill_after: int) -> None:
    with RuntimeProcess(tmp_path, MANIFEST) as runtime:
        module = Client(runtime, "local-edge/m", await runtime.key("local-edge/modules/m"))
        await module.connect()
        module.send(Subscribe(1, (("devices/local-edge/modules/m/inputs/#", 1),)))
        assert isinstance(await module.next(), Suback)
        await module.close()
        leaf = Client(runtime, "leaf", await runtime.key("leaf"))
        await leaf.connect()
        acknowledged = await publish_until_killed(leaf, runtime, kill_after)
        await leaf.close()
        runtime.start(with_manifest=False)
        # The session is durable: the module subscribes never again and still receives.
        assert (await module.connect()).session_present
        received: list[int] = []
        while not acknowledged <= set(received):
            packet = await module.next()
            if isinstance(packet, Publish):
                received.append(int(packet.payload))
                module.send(Puback(1))
        assert received == sorted(set(received))
        await module.close()


async def test_address_certificates_identities_and_twins_are_the_same_after_kill_9(tmp_path: Path) -> None:
    with RuntimeProcess(tmp_path, MANIFEST) as runtime:
        before = await snapshot(runtime)
        await runtime.call("PATCH", "/twins/local-edge/modules/m", {"properties": {"desired": {"limit": 4}}})
        runtime.kill()
        runtime.start(with_manifest=False)
        after = await snapshot(runtime)
        assert after["twin"]["properties"]["desired"] == {"limit": 4, "$version": 3}
        del before["twin"], after["twin"]
        assert before == after
        assert runtime.stop() == 0
        assert not await asyncio.to_thread(Path(runtime.ready["control_socket"]).exists)


async def snapshot(runtime: RuntimeProcess) -> dict[str, Any]:
    return {
        "ready": runtime.ready,
        "ca": runtime.ca,
        "key": await runtime.key("leaf"),
        "environment": await runtime.call("GET", "/edgeweir/modules/m/environment"),
        "twin": await runtime.call("GET", "/twins/local-edge/modules/m"),
    }


@pytest.mark.parametrize("in_use", ["state folder", "address"])
def test_a_taken_state_folder_or_address_ends_in_one_line(tmp_path: Path, in_use: str) -> None:
    with RuntimeProcess(tmp_path, MANIFEST) as runtime:
        state = tmp_path / ("state" if in_use == "state folder" else "other")
        command = [sys.executable, "-m", "simulator.runtime", "--state", str(state)]
        second = subprocess.run(
            [*command, "--address", runtime.ready["address"]], capture_output=True, text=True, timeout=20, check=False
        )
        assert second.returncode == 1
        assert second.stdout == ""
        (line,) = second.stderr.splitlines()
        assert "another runtime uses" in line or "is taken" in line


async def test_a_runtime_leaves_in_good_order_while_a_client_is_about_to_connect(tmp_path: Path) -> None:
    """A client that has opened a connection and not begun, or not finished, its TLS handshake."""
    with RuntimeProcess(tmp_path / "edge", MANIFEST) as runtime:
        _, writer = await asyncio.open_connection(runtime.ready["gateway_host"], 8883)
        # Accepted in order: once this one is through, the silent one is in the runtime's hands.
        other = Client(runtime, "leaf", await runtime.key("leaf"))
        await other.connect()
        assert await asyncio.to_thread(runtime.stop) == 0
        for stream in (writer, other.writer):
            stream.transport.abort()
