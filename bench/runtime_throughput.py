"""Messages per second through the local edge runtime: in (acknowledged to the sender) and on to a module's input.

The runtime is a process of its own; the clients are bare sockets over TLS in this one. Prints messages per second in,
and from the first message to the last acknowledgement of the receiver (one hop, one unacknowledged message at a time).
"""

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from simulator.runtime.codec import Connack, Connect, Packet, Parser, Puback, Publish, Suback, Subscribe, encode
from simulator.runtime.sas import make_token

MESSAGES = 10_000
WINDOW = 20  # what the device SDK keeps in flight
BODY = b"x" * 300
MANIFEST = {
    "modulesContent": {
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "routes": {"a": 'FROM /messages/* INTO BrokeredEndpoint("/modules/m/inputs/i")'},
                "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
            }
        }
    }
}


class Client:
    def __init__(self, ready: dict[str, Any], client_id: str, key: bytes) -> None:
        self._ready, self._client_id, self._key = ready, client_id, key
        self._parser = Parser()
        self._packets: list[Packet] = []

    async def connect(self) -> None:
        context = ssl.create_default_context(cafile=self._ready["ca_file"])
        self._reader, self.writer = await asyncio.open_connection(self._ready["gateway_host"], 8883, ssl=context)
        host = "local-hub.azure-devices.net"
        path = f"{host}/devices/" + self._client_id.replace("/", "/modules/")
        token = make_token(self._key, path, int(time.time()) + 3600)
        self.send(Connect(self._client_id, f"{host}/{self._client_id}/?api-version=2021-04-12", token.encode()))
        answer = await self.next()
        if not isinstance(answer, Connack) or answer.code:
            raise SystemExit(f"refused: {answer}")

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(map(encode, packets)))

    async def next(self) -> Packet:
        while not self._packets:
            self._packets = self._parser.feed(await self._reader.read(65536))[::-1]
        return self._packets.pop()


async def publish(client: Client, count: int, name: str) -> None:
    sent = acknowledged = 0
    while acknowledged < count:
        while sent < count and sent - acknowledged < WINDOW:
            sent += 1
            topic = f"devices/{name}/messages/events/%24.mid={sent}&%24.ct=application%2Fjson&%24.ce=utf-8"
            client.send(Publish(topic, BODY, 1, sent % 65535 + 1))
        if isinstance(await client.next(), Puback):
            acknowledged += 1


async def receive(client: Client, count: int) -> None:
    client.send(Subscribe(1, (("devices/local-edge/modules/m/inputs/#", 1),)))
    if not isinstance(await client.next(), Suback):
        raise SystemExit("no SUBACK")
    for _ in range(count):
        packet = await client.next()
        if isinstance(packet, Publish):
            client.send(Puback(packet.packet_id))


async def measure(ready: dict[str, Any], publishers: int) -> None:
    import base64

    from aiohttp import ClientSession, UnixConnector

    async with ClientSession(connector=UnixConnector(ready["control_socket"])) as session:

        async def key(path: str) -> bytes:
            async with session.put(f"http://edge/devices/{path}") as answer:
                return base64.b64decode((await answer.json())["authentication"]["symmetricKey"]["primaryKey"])

        receiver = Client(ready, "local-edge/m", await key("local-edge/modules/m"))
        senders = [Client(ready, f"d{n}", await key(f"d{n}")) for n in range(publishers)]
    for client in senders:
        await client.connect()
    each = MESSAGES // publishers
    started = time.perf_counter()
    await asyncio.gather(*(publish(c, each, f"d{n}") for n, c in enumerate(senders)))
    secs = time.perf_counter() - started
    await receiver.connect()
    # The pump waits to try again while nobody is there; the clock starts at the first message.
    client_task = asyncio.create_task(receive(receiver, 1))
    await client_task
    started = time.perf_counter()
    for _ in range(each * publishers - 1):
        await receiver.next()
        receiver.send(Puback(1))
    hop_secs = time.perf_counter() - started
    count = each * publishers
    sys.stdout.write(f"{publishers} publishers: in {count / secs:,.0f}/s, one hop out {count / hop_secs:,.0f}/s\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.json"
        manifest.write_text(json.dumps(MANIFEST))
        command = [sys.executable, "-m", "simulator.runtime", "--state", f"{folder}/state", "--manifest", str(manifest)]
        with subprocess.Popen([*command, "--time-scale", "30"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            try:
                for publishers in (1, 10):
                    asyncio.run(measure(ready, publishers))
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
