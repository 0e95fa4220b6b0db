"""A hub on raw sockets that does exactly what a test says, and remembers the order of every packet.

It follows edgeHub where that is inconvenient: every packet it publishes has packet id 1 and DUP 0, a PUBACK completes
the oldest unacknowledged packet of the connection, one input at a time is unacknowledged, a copy follows after the
time-out, and a second connection with the same client id closes the first.
"""

import asyncio
import contextlib
import ipaddress
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


def make_pki(folder: Path) -> tuple[Path, Path]:
    """A self-signed server certificate (its own root) and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "hub.pem", folder / "hub.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


class Input(NamedTuple):
    """What the hub delivers."""

    body: bytes
    message_id: str | None
    name: str = "in"

    def topic(self) -> str:
        bag = "k=v%20w&%24.cdid=device-1&%24.ct=application%2Fjson&%24.ce=utf-8"
        if self.message_id is not None:
            bag += f"&%24.mid={quote(self.message_id, safe='')}"
        return f"devices/edge/modules/echo/inputs/{self.name}/{bag}"


class Published(NamedTuple):
    topic: str
    properties: dict[str, str]
    body: bytes


class Session:
    """One connection. `unacknowledged` is what edgeHub's list of pending acknowledgements would hold."""

    def __init__(self, hub: "ScriptedHub", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hub = hub
        self.reader = reader
        self.writer = writer
        self.unacknowledged: deque[tuple[str, Callable[[], None]]] = deque()
        self.completed: list[str] = []  # names of the packets that PUBACKs completed, in order
        self.subscriptions: list[str] = []
        self.username = ""
        self.password = ""
        self.is_open = True

    def publish(self, name: str, topic: str, payload: bytes, completed: Callable[[], None] = lambda: None) -> None:
        encoded = topic.encode()
        body = len(encoded).to_bytes(2, "big") + encoded + b"\x00\x01" + payload
        self.unacknowledged.append((name, completed))
        self.writer.write(b"\x32" + _length(len(body)) + body)

    def close(self) -> None:
        self.is_open = False
        self.writer.close()

    async def serve(self) -> None:
        while True:
            first = (await self.reader.readexactly(1))[0]
            payload = await self.reader.readexactly(await _read_length(self.reader))
            await self._packet(first >> 4, first & 0x0F, payload)
            self.hub.changed()

    async def _packet(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == 1:
            self._connect(payload)
        elif kind == 3:
            self._published(payload)
        elif kind == 4:
            if not self.unacknowledged:
                self.hub.acks_of_nothing += 1
                return
            name, completed = self.unacknowledged.popleft()
            self.completed.append(name)
            completed()
        elif kind == 8 and self.hub.closes_at_subscribe:
            self.hub.closes_at_subscribe -= 1
            self.close()
        elif kind == 8:
            self.subscriptions += _filters(payload[2:])
            count = len(_filters(payload[2:]))
            self.writer.write(b"\x90" + _length(2 + count) + payload[:2] + b"\x01" * count)
            self.hub.subscribed.set()
        elif kind == 12:
            self.writer.write(b"\xd0\x00")
        elif kind == 14:
            self.hub.disconnects += 1
            self.close()

    def _connect(self, payload: bytes) -> None:
        fields = _strings(payload[10:])
        assert payload[:8] == b"\x00\x04MQTT\x04\xc2" + b"" or payload[:6] == b"\x00\x04MQTT"
        self.hub.connect_flags.append(payload[7])
        self.hub.keep_alives.append(int.from_bytes(payload[8:10], "big"))
        self.client_id, self.username, self.password = fields
        code = self.hub.refuse_with.popleft() if self.hub.refuse_with else 0
        self.writer.write(bytes([0x20, 2, 0, code]))
        if code:
            self.close()
            return
        old = self.hub.session
        self.hub.session = self
        self.hub.connects += 1
        if old is not None and old.is_open:
            old.close()
        if self.hub.greetings:
            greeting = self.hub.greetings.popleft()
            self.publish(f"input {greeting.message_id}", greeting.topic(), greeting.body)

    def _published(self, payload: bytes) -> None:
        size = int.from_bytes(payload[:2], "big")
        topic, mid, body = payload[2 : 2 + size].decode(), payload[2 + size : 4 + size], payload[4 + size :]
        if topic.startswith("$iothub/"):
            self._answer(topic, body)
        else:
            self.hub.outputs.append(Published(topic, _bag(topic.rsplit("/", 1)[1]), body))
        if self.hub.acknowledges:
            self.writer.write(b"\x40\x02" + mid)

    def _answer(self, topic: str, body: bytes) -> None:
        request = topic.rsplit("$rid=", 1)[1]
        if topic.startswith("$iothub/twin/GET/"):
            document = json.dumps({"desired": self.hub.desired, "reported": {"$version": 1}})
            self.publish("twin", f"$iothub/twin/res/200/?$rid={request}", document.encode())
        elif topic.startswith("$iothub/twin/PATCH/"):
            self.hub.reported.append(json.loads(body))
            self.publish("twin", f"$iothub/twin/res/204/?$rid={request}", b"")
        elif topic.startswith("$iothub/methods/res/"):
            self.hub.method_answers[request] = (int(topic.split("/")[3]), json.loads(body))


class ScriptedHub:
    def __init__(self) -> None:
        self.port = 0
        self.session: Session | None = None
        self.sessions: list[Session] = []
        self.connects = 0
        self.disconnects = 0
        self.connect_flags: list[int] = []
        self.keep_alives: list[int] = []
        self.refuse_with: deque[int] = deque()
        self.acknowledges = True
        self.greetings: deque[Input] = deque()  # each is sent right after a CONNACK
        self.closes_at_subscribe = 0  # on so many connections
        self.outputs: list[Published] = []
        self.reported: list[dict[str, object]] = []
        self.method_answers: dict[str, tuple[int, object]] = {}
        self.desired: dict[str, object] = {"$version": 1}
        self.delivered_copies = 0
        self.acks_of_nothing = 0
        self.subscribed = asyncio.Event()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool], secs: float = 20.0) -> None:
        """Wait until the condition holds; looked at again whenever a packet came, and ten times a second."""
        async with asyncio.timeout(secs):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await self._changed.wait()

    async def attached(self) -> Session:
        """The session, once it has subscribed."""
        await self.until(lambda: self.session is not None and self.session.is_open and bool(self.session.subscriptions))
        assert self.session is not None
        return self.session

    async def deliver(self, messages: list[Input], *, ack_timeout_secs: float = 1.0) -> None:
        """As edgeHub does: one unacknowledged, a copy after the time-out, again on every new connection."""
        for message in messages:
            is_done = asyncio.Event()
            while not is_done.is_set():
                session = await self.attached()
                session.publish(f"input {message.message_id}", message.topic(), message.body, is_done.set)
                self.delivered_copies += 1
                await self._acknowledged_or_lost(session, is_done, ack_timeout_secs)

    async def _acknowledged_or_lost(self, session: Session, is_done: asyncio.Event, secs: float) -> None:
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: is_done.is_set() or not session.is_open or session is not self.session, secs)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self, reader, writer)
        self.sessions.append(session)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            await session.serve()
        session.is_open = False
        self.changed()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    def once(self) -> dict[str, Published]:
        """What a receiver that drops repeats has, by message id."""
        return {published.properties["$.mid"]: published for published in self.outputs}


@asynccontextmanager
async def running_hub(certificate: Path, key: Path, port: int = 0) -> AsyncIterator[ScriptedHub]:
    hub = ScriptedHub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(hub.serve, HOST, port, ssl=context)
    hub.port = server.sockets[0].getsockname()[1]
    try:
        yield hub
    finally:
        server.close()
        for session in hub.sessions:
            session.close()
        await asyncio.sleep(0)


def _bag(text: str) -> dict[str, str]:
    pairs = (pair.split("=", 1) for pair in text.split("&") if pair)
    return {unquote(key): unquote(value) for key, value in pairs}


def _strings(data: bytes) -> list[str]:
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size].decode())
        data = data[2 + size :]
    return found


def _filters(data: bytes) -> list[str]:
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size].decode())
        data = data[3 + size :]
    return found


def _length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


async def _read_length(reader: asyncio.StreamReader) -> int:
    value, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value
