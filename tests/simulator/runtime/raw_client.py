"""A bare MQTT client over TLS: it sends exactly what a test asks for, and shows every packet that comes back."""

import asyncio
import ssl
import time
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from simulator.runtime import LocalEdge
from simulator.runtime.codec import (
    Connack,
    Connect,
    Packet,
    Parser,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from simulator.runtime.sas import make_token

WAIT_SECS = 10.0
INPUTS = "devices/local-edge/modules/{}/inputs/#"
P = TypeVar("P")


class Closed(Exception):
    """The hub closed the connection."""


class RawClient:
    """`received` holds what came and was not asked for yet. Nothing is acknowledged unless the test does it."""

    opened: ClassVar[list[asyncio.StreamWriter]] = []  # closed after each test, whatever it left open

    def __init__(self, edge: LocalEdge, device: str, module: str = "") -> None:
        self.edge = edge
        self.device, self.module = device, module
        self.client_id = f"{device}/{module}" if module else device
        self.received: list[Packet] = []
        self._parser = Parser()
        self._mid = 0

    @property
    def username(self) -> str:
        return f"{self.edge.config.hub_host_name}/{self.client_id}/?api-version=2019-10-01"

    def token(self, *, key: bytes | None = None, expires_in_secs: float = 3600, uri: str | None = None) -> str:
        identity = self.edge.registry.get(self.device, self.module)
        key = key or (identity.keys[0] if identity else b"nobody")
        path = f"/devices/{self.device}" + (f"/modules/{self.module}" if self.module else "")
        uri = uri or self.edge.config.hub_host_name + path
        return make_token(key, uri, int(time.time() + expires_in_secs))

    async def open(self) -> Self:
        context = ssl.create_default_context(cafile=str(self.edge.ca_file))
        self.reader, self.writer = await asyncio.open_connection(
            self.edge.gateway_host, self.edge.config.port, ssl=context
        )
        self.opened.append(self.writer)
        return self

    async def connect(self, **changes: object) -> Connack:
        """Opens the socket and sends CONNECT, with fields changed as the test wants."""
        await self.open()
        fields: dict[str, object] = {
            "client_id": self.client_id,
            "username": self.username,
            "password": self.token().encode(),
            "keep_alive_secs": 60,
        }
        self.send(Connect(**(fields | changes)))  # type: ignore[arg-type]  # the test's own fields
        return await self.expect(Connack)

    async def __aenter__(self) -> Self:
        answer = await self.connect()
        assert answer.code == 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the TCP connection without a word."""
        self.writer.transport.abort()

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(map(encode, packets)))

    def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)

    async def expect(self, kind: type[P]) -> P:
        """The next packet of this kind; others stay in `received`."""
        async with asyncio.timeout(WAIT_SECS):
            while True:
                for index, packet in enumerate(self.received):
                    if isinstance(packet, kind):
                        del self.received[index]
                        return packet
                data = await self._read()
                self.received += self._parser.feed(data)

    async def _read(self) -> bytes:
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed
        return data

    async def expect_close(self) -> None:
        """The hub closes; whatever comes before that is kept in `received`."""
        async with asyncio.timeout(WAIT_SECS):
            while True:
                try:
                    self.received += self._parser.feed(await self._read())
                except Closed:
                    return

    async def settle(self) -> None:
        """Everything sent so far was handled: a PINGREQ is answered in its turn."""
        self.send_bytes(b"\xc0\x00")
        await self.expect(Pingresp)

    async def subscribe(self, *filters: str, qos: int = 1) -> Suback:
        self._mid += 1
        self.send(Subscribe(self._mid, tuple((f, qos) for f in filters)))
        return await self.expect(Suback)

    async def subscribe_inputs(self) -> Suback:
        return await self.subscribe(INPUTS.format(self.module))

    async def unsubscribe(self, *filters: str) -> None:
        self._mid += 1
        self.send(Unsubscribe(self._mid, filters))
        await self.expect(Unsuback)

    def publish(self, topic: str, payload: bytes = b"{}", *, qos: int = 1, dup: bool = False) -> int:
        self._mid += 1
        self.send(Publish(topic, payload, qos, self._mid if qos else 0, dup))
        return self._mid

    async def publish_acked(self, topic: str, payload: bytes = b"{}") -> None:
        mid = self.publish(topic, payload)
        assert (await self.expect(Puback)).packet_id == mid

    def telemetry(self, bag: str = "") -> str:
        part = f"/modules/{self.module}" if self.module else ""
        return f"devices/{self.device}{part}/messages/events/{bag}"

    def acknowledge(self) -> None:
        self.send(Puback(1))
