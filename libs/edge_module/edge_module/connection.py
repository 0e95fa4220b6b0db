"""One MQTT connection to edgeHub, driven by the event loop.

A connection has a paho client of its own and is never reused: an acknowledgement can only reach the connection that its
packet came on, and nothing queued for one connection is sent on another. paho's own reconnect, queue and threads are
not used. All methods but `open`'s blocking part run on the event loop's thread.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contract.limits import PACKET_LIMIT_BYTES
from edge_module.ack_queue import AckQueue, Ticket
from edge_module.errors import TooLarge
from edge_module.wire import Address, Packet, decode

_HEADER_BYTES = 5 + 2 + 2  # fixed header, topic length, packet id


class ConnectionRefused(Exception):
    """edgeHub answered CONNECT with a refusal."""


class Receiver(Protocol):
    def on_packet(self, connection: "Connection", packet: Packet | None, topic: str, ticket: Ticket | None) -> None:
        """A packet has come. `ticket` (None for QoS 0) must be completed once its effect is safe."""
        ...


class Connection:
    def __init__(
        self,
        address: Address,
        *,
        gateway: str,
        port: int,
        product: str,
        password: str,
        tls: ssl.SSLContext,
        receiver: Receiver,
        timeout_secs: float,
        keep_alive_secs: int,
        log: logging.Logger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.address = address
        self.closed: asyncio.Future[str] = self._loop.create_future()  # why it ended
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        for future in (self._accepted, self._subscribed):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._receiver = receiver
        self._gateway = gateway
        self._port = port
        self._timeout_secs = timeout_secs
        self._keep_alive_secs = keep_alive_secs
        self._log = log
        self._acks = AckQueue()
        self._published: dict[int, Callable[[], None]] = {}
        self._fd = -1
        self._watching_write = False
        self._flush_is_due = False
        self._misc: asyncio.TimerHandle | None = None
        self._client = self._make_client(product, password, tls)

    def _make_client(self, product: str, password: str, tls: ssl.SSLContext) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.address.client_id,
            clean_session=False,
            protocol=MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(0)  # the publisher's window bounds what is in flight
        client.username_pw_set(self.address.username(product), password)
        client.tls_set_context(tls)
        client.connect_timeout = self._timeout_secs
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_register_write = lambda *_: self._flush_soon()
        client.on_socket_close = lambda *_: self._detach()
        return client

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    async def open(self) -> None:
        """Connect, be accepted, subscribe. Raises OSError, ConnectionRefused or TimeoutError; then it is closed."""
        try:
            await self._loop.run_in_executor(None, self._connect)
            async with asyncio.timeout(self._timeout_secs):
                self._attach()
                await self._accepted
                self._client.subscribe([(topic, 1) for topic in self.address.subscriptions()])
                await self._subscribed
        except BaseException as error:
            self.close(f"{type(error).__name__}: {error}")
            raise

    def _connect(self) -> None:
        self._client.connect(self._gateway, self._port, self._keep_alive_secs)

    def publish(self, topic: str, payload: bytes, acknowledged: Callable[[], None]) -> None:
        """Send at QoS 1; `acknowledged` is called when edgeHub's PUBACK came, never when the connection ends before.

        Raises TooLarge: edgeHub would close the connection over the packet, each time it is sent.
        """
        size = _HEADER_BYTES + len(topic.encode()) + len(payload)
        if size > PACKET_LIMIT_BYTES:
            raise TooLarge("a packet", size, PACKET_LIMIT_BYTES)
        if not self.is_open:
            return
        info = self._client.publish(topic, payload, qos=1)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._published[info.mid] = acknowledged
        else:
            self.close(f"publish failed: {info.rc.name}")

    def complete(self, ticket: Ticket) -> None:
        """The packet's effect is safe. Its PUBACK goes out when those before it have; never on another connection."""
        for mid in self._acks.complete(ticket):
            self._client.ack(mid, 1)

    def hold_flush(self) -> None:
        """The caller is about to queue packets and calls `flush` itself, before it awaits anything."""
        self._flush_is_due = True

    def flush(self) -> None:
        """Hand what is queued to the operating system now, as far as it takes it."""
        self._flush_is_due = False
        if self._fd < 0:
            return
        self._client.loop_write()
        if self._fd >= 0:
            self._watch_write(self._client.want_write())

    def disconnect(self) -> None:
        """Say DISCONNECT and close."""
        if self.is_open and self._fd >= 0:
            self._client.disconnect()
            self.flush()
        self.close("disconnected")

    def close(self, why: str) -> None:
        """Close the socket at once."""
        sock = self._client.socket()
        self._detach()
        if sock is not None:
            sock.close()
        self._end(why)

    def unacknowledged(self) -> int:
        """How many packets of edgeHub wait for their PUBACK."""
        return len(self._acks)

    # The event loop's side

    def _attach(self) -> None:
        sock = self._client.socket()
        if sock is None or not self.is_open:
            raise ConnectionError("the connection was lost")
        self._fd = sock.fileno()
        self._loop.add_reader(self._fd, self._read)
        self._check()
        self.flush()

    def _detach(self) -> None:
        if self._misc is not None:
            self._misc.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._watch_write(False)
            self._fd = -1

    def _read(self) -> None:
        self._client.loop_read()
        # TLS may hold whole packets that the selector cannot see any more.
        while self._fd >= 0 and self._pending():
            self._client.loop_read()

    def _pending(self) -> int:
        sock: Any = self._client.socket()
        return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0

    def _flush_soon(self) -> None:
        # Also called on the executor's thread while connecting; then `_attach` flushes.
        if self._fd >= 0 and not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    def _watch_write(self, wanted: bool) -> None:
        if wanted and not self._watching_write:
            self._loop.add_writer(self._fd, self.flush)
        elif not wanted and self._watching_write:
            self._loop.remove_writer(self._fd)
        self._watching_write = wanted

    def _check(self) -> None:
        self._client.loop_misc()
        if self.is_open:
            self._misc = self._loop.call_later(1.0, self._check)

    # paho's callbacks

    def _on_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if self._accepted.done():
            return
        if reason.is_failure:
            self._accepted.set_exception(ConnectionRefused(str(reason)))
        else:
            self._accepted.set_result(None)

    def _on_subscribe(
        self, client: Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(None)

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._detach()
        self._end(f"edgeHub closed the connection ({reason})" if reason.value == 0 else str(reason))

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        ticket = self._acks.arrive(message.mid) if message.qos > 0 else None
        try:
            topic = message.topic
            packet = decode(topic, bytes(message.payload))
        except ValueError:
            topic, packet = "", None
        self._receiver.on_packet(self, packet, topic, ticket)

    def _on_publish(
        self, client: Client, userdata: object, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if acknowledged := self._published.pop(mid, None):
            acknowledged()

    def _end(self, why: str) -> None:
        self._acks.void()
        self._published.clear()
        for future in (self._accepted, self._subscribed):
            if not future.done():
                future.set_exception(ConnectionError(why))
        with contextlib.suppress(asyncio.InvalidStateError):
            self.closed.set_result(why)
