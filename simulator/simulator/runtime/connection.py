"""One client's connection: the MQTT state machine between the socket and the hub.

Order is the promise here. Packets of one connection are handled strictly one after another. What the hub answers
before the request's PUBACK is written before it. Every PUBLISH to the client carries packet id 1 and DUP 0, and a
PUBACK completes the oldest of them still open, whatever it was: input, twin or method.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast

from simulator.runtime.codec import (
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Parser,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    ReturnCode,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
    filter_matches,
)
from simulator.runtime.kill_points import Reach
from simulator.runtime.sas import SasToken
from simulator.runtime.sessions import Subscriptions
from simulator.runtime.timing import CONNECT_WAIT_SECS, Pace, keep_alive_limit_secs
from simulator.runtime.topics import Features, features_of
from simulator.runtime.usernames import Username

_LOG = logging.getLogger(__name__)
# edgeHub leaves the sequence number of what it publishes at zero, which the wire shows as id 1.
HUB_PACKET_ID = 1
_ABORT_AFTER_CLOSE_SECS = 2.0
_TOPIC_LIMIT_BYTES = 65_535  # properties grow when they are escaped


class Delivery(Enum):
    """How sending one input message ended."""

    DELIVERED = auto()
    REJECTED = auto()  # no filter takes it: the message is dropped
    FAILED = auto()  # transient: the same message again after a wait


class Admission(Protocol):
    """What CONNECT was worth."""

    @property
    def code(self) -> ReturnCode: ...
    @property
    def username(self) -> Username | None: ...
    @property
    def token(self) -> SasToken | None: ...


class Hub(Protocol):
    """What a connection needs from the hub."""

    pace: Pace
    reach: Reach

    def admit(self, connect: Connect) -> Admission: ...
    def open_session(self, connection: "Connection", *, clean: bool) -> bool: ...
    def bind(self, connection: "Connection") -> None: ...
    def unbind(self, connection: "Connection") -> None: ...
    def handle_publish(self, connection: "Connection", packet: Publish, done: Callable[[bool], None]) -> bool: ...
    def subscribe(self, connection: "Connection", granted: Subscriptions, done: Callable[[bool], None]) -> None: ...
    def unsubscribe(self, connection: "Connection", filters: tuple[str, ...], done: Callable[[bool], None]) -> None: ...


class Connection(asyncio.Protocol):
    """Lives from accept to close. `is_bound` says whether the hub sends it inputs, twins and methods."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._parser = Parser()
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []
        self._steps_written: list[str] = []  # kill points that `_outgoing` passes once it is written
        self._pending: deque[asyncio.Future[Delivery] | None] = deque()
        self._in_flight: asyncio.Future[Delivery] | None = None
        self._input_lock = asyncio.Lock()
        self._will: Publish | None = None
        self._idle_limit_secs = CONNECT_WAIT_SECS
        self._last_heard = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self.username: Username | None = None
        self.token: SasToken | None = None
        self.subscriptions: Subscriptions = {}
        self.features: Features = features_of(set())
        self.clean_session = False
        self.is_bound = False
        self.is_closed = False

    @property
    def client_id(self) -> str:
        return self.username.client_id if self.username else ""

    def restore(self, subscriptions: Subscriptions) -> None:
        """Takes over the subscriptions of a stored session."""
        self.subscriptions = dict(subscriptions)
        self.features = features_of(set(self.subscriptions))

    # --- the socket ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.is_closed:  # the hub stopped during the TLS handshake, before there was anything to close
            cast(asyncio.Transport, transport).abort()
            return
        self._transport = cast(asyncio.Transport, transport)
        self._idle_timer = self._loop.call_later(self._idle_limit_secs, self._check_idle)

    def data_received(self, data: bytes) -> None:
        if self.is_closed:
            return
        self._last_heard = self._loop.time()
        try:
            packets = self._parser.feed(data)
        except MalformedPacket as error:
            self._handle_all(self._parser.before_error)
            self.close(f"malformed packet: {error}")
            return
        self._handle_all(packets)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close("the client went away")

    def pause_writing(self) -> None:
        # A client that does not read what we answer is not read from either.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.is_closed:
            self._transport.resume_reading()

    def _check_idle(self) -> None:
        silent_secs = self._loop.time() - self._last_heard
        if silent_secs >= self._idle_limit_secs:
            self.close("keep-alive is over" if self.username else "no CONNECT came")
            return
        self._idle_timer = self._loop.call_later(self._idle_limit_secs - silent_secs, self._check_idle)

    def _send(self, packet: Packet, step: str = "") -> None:
        """Queues a packet; what is queued in one turn of the loop leaves in one TLS record. `step` comes after it."""
        if self.is_closed:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(encode(packet))
        if step:
            self._steps_written.append(step)

    def _flush(self) -> None:
        if self._outgoing and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        for step in self._steps_written:
            self._hub.reach(step)
        self._steps_written.clear()

    def close(self, reason: str, *, abnormal: bool = True, cancel_in_flight: bool = False) -> None:
        """Ends the connection. A message in flight keeps waiting for its own time-out, unless it is cancelled."""
        if cancel_in_flight and self._in_flight is not None and not self._in_flight.done():
            self._in_flight.set_result(Delivery.FAILED)
        if self.is_closed:
            return
        _LOG.debug("connection of %s closed: %s", self.client_id or "?", reason)
        self._flush()
        self.is_closed = True
        if self._idle_timer is None:
            return  # its TLS handshake is not over: there is no transport yet
        self._idle_timer.cancel()
        self._transport.close()
        self._loop.call_later(_ABORT_AFTER_CLOSE_SECS, self._transport.abort)
        if self.username is not None:
            self._hub.unbind(self)
            if abnormal and self._will is not None:
                self._hub.handle_publish(self, self._will, lambda _: None)

    # --- packets from the client -----------------------------------------------------------------------------------

    def _handle_all(self, packets: list[Packet]) -> None:
        for packet in packets:
            if self.is_closed:
                return
            self._handle(packet)

    def _handle(self, packet: Packet) -> None:
        if self.username is None:
            if isinstance(packet, Connect):
                self._on_connect(packet)
            else:
                self.close("the first packet is no CONNECT")
            return
        match packet:
            case Publish():
                self._on_publish(packet)
            case Puback(packet_id):
                self._on_puback(packet_id)
            case Subscribe():
                self._on_subscribe(packet)
            case Unsubscribe():
                self._on_unsubscribe(packet)
            case Pingreq():
                self._send(Pingresp())
            case Disconnect():
                self.close("the client said goodbye", abnormal=False)
            case _:
                self.close(f"{type(packet).__name__} is not expected here")

    def _on_connect(self, packet: Connect) -> None:
        admission = self._hub.admit(packet)
        if admission.code is not ReturnCode.ACCEPTED or admission.username is None:
            self._send(Connack(admission.code))
            self.close(f"CONNECT refused with {admission.code.name}")
            return
        self.username, self.token = admission.username, admission.token
        self.clean_session = packet.clean_session
        if packet.will is not None:
            will = packet.will
            self._will = Publish(will.topic, will.payload, min(will.qos, 1), will.qos and HUB_PACKET_ID)
        self._idle_limit_secs = keep_alive_limit_secs(packet.keep_alive_secs)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = self._loop.call_later(self._idle_limit_secs, self._check_idle)
        session_present = self._hub.open_session(self, clean=packet.clean_session)
        # Written before the identity is bound, before an older connection is evicted, before anything else.
        self._send(Connack(ReturnCode.ACCEPTED, session_present), "connection_accepted")
        self._flush()
        self._hub.bind(self)
        self._hub.reach("connection_bound")

    def _on_publish(self, packet: Publish) -> None:
        if "+" in packet.topic or "#" in packet.topic:
            self.close("a PUBLISH topic has a wildcard")
            return
        if not self._hub.handle_publish(self, packet, lambda is_safe: self._finish_publish(packet, is_safe)):
            self.close("a twin topic is malformed")

    def _finish_publish(self, packet: Publish, is_safe: bool) -> None:
        if not is_safe:
            self.close("the message could not be stored")
        elif packet.qos == 2:
            self.close("QoS 2 is not supported")
        elif packet.qos == 1:
            self._hub.reach("before_puback")
            self._send(Puback(packet.packet_id), "after_puback")

    def _on_subscribe(self, packet: Subscribe) -> None:
        granted = {topic_filter: min(qos, 1) for topic_filter, qos in packet.filters}
        self.subscriptions.update(granted)
        self.features = features_of(set(self.subscriptions))
        codes = tuple(min(qos, 1) for _, qos in packet.filters)
        suback = Suback(packet.packet_id, codes)
        self._hub.subscribe(self, granted, lambda is_safe: self._answer(suback, is_safe, "session_granted"))

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        for topic_filter in packet.filters:
            self.subscriptions.pop(topic_filter, None)
        self.features = features_of(set(self.subscriptions))
        self._hub.unsubscribe(self, packet.filters, lambda is_safe: self._answer(Unsuback(packet.packet_id), is_safe))

    def _answer(self, packet: Packet, is_safe: bool, step: str = "") -> None:
        if is_safe:
            self._send(packet, step)
        else:
            self.close("the session could not be stored")

    def _on_puback(self, packet_id: int) -> None:
        if packet_id != HUB_PACKET_ID or not self._pending:
            _LOG.warning("unexpected PUBACK %d from %s", packet_id, self.client_id)
            return
        delivery = self._pending.popleft()
        # A head that timed out is done already: its late PUBACK completes nothing else.
        if delivery is not None and not delivery.done():
            delivery.set_result(Delivery.DELIVERED)

    # --- packets to the client ---------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, step: str = "") -> bool:
        """Sends a twin or method packet; False when no filter of the client takes it."""
        qos = self._granted_qos(topic)
        if qos is None or self.is_closed:
            return False
        if qos:
            self._pending.append(None)
        self._send(Publish(topic, payload, qos, HUB_PACKET_ID if qos else 0), step)
        return True

    async def deliver_input(self, topic: str, payload: bytes, timeout_secs: float, qos_limit: int = 1) -> Delivery:
        """Sends an input message when it is the connection's turn, and waits for its PUBACK or the time-out."""
        async with self._input_lock:
            if self.is_closed:
                return Delivery.FAILED
            granted = self._granted_qos(topic)
            if granted is None:
                return Delivery.REJECTED
            qos = min(granted, qos_limit)
            if qos == 0:
                self._send(Publish(topic, payload))
                return Delivery.DELIVERED
            delivery: asyncio.Future[Delivery] = self._loop.create_future()
            self._pending.append(delivery)
            self._in_flight = delivery
            self._hub.reach("before_delivery")
            self._send(Publish(topic, payload, qos, HUB_PACKET_ID), "after_delivery")
            timer = self._loop.call_later(timeout_secs, _time_out, delivery)
            try:
                return await delivery
            finally:
                timer.cancel()
                self._in_flight = None

    def _granted_qos(self, topic: str) -> int | None:
        """The best QoS of the filters that take the topic; None when none does, or the topic fits no packet."""
        if len(topic.encode()) > _TOPIC_LIMIT_BYTES:
            return None
        return max((q for f, q in self.subscriptions.items() if filter_matches(f, topic)), default=None)


def _time_out(delivery: asyncio.Future[Delivery]) -> None:
    if not delivery.done():
        delivery.set_result(Delivery.FAILED)
