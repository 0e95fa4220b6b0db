"""MQTT 3.1.1 on the wire, without I/O: bytes in, packets out, and back.

Promises:
- `Parser.feed` accepts any split of the stream and returns the packets that are complete, in order.
- What the standard forbids raises `MalformedPacket`; the packets before it in the same chunk are kept in
  `Parser.before_error`, because edgeHub still processes what it has read.
- No packet above `PACKET_LIMIT_BYTES`, fixed header included, is ever buffered: the header alone decides.

An unsupported protocol name or level is not malformed: it is a `Connect` that the server answers with code 1.
Section numbers are those of the OASIS standard, MQTT Version 3.1.1.
"""

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum

import msgspec

PACKET_LIMIT_BYTES = 262_144

_U16 = struct.Struct(">H")


class MalformedPacket(Exception):
    """The peer broke the protocol; the connection can only be closed."""


class ReturnCode(IntEnum):
    """CONNACK return codes (3.2.2.3) that edgeHub gives."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL = 1
    SERVER_UNAVAILABLE = 3
    NOT_AUTHORIZED = 5


class Will(msgspec.Struct, frozen=True):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Connect(msgspec.Struct, frozen=True):
    client_id: str
    username: str | None = None
    password: bytes | None = None
    clean_session: bool = False
    keep_alive_secs: int = 0
    will: Will | None = None
    protocol: str = "MQTT"
    level: int = 4


class Connack(msgspec.Struct, frozen=True):
    code: int
    session_present: bool = False


class Publish(msgspec.Struct, frozen=True, gc=False):
    topic: str
    payload: bytes = b""
    qos: int = 0
    packet_id: int = 0  # 0 with QoS 0 only
    dup: bool = False
    retain: bool = False


class Puback(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[tuple[str, int], ...]


class Suback(msgspec.Struct, frozen=True):
    packet_id: int
    codes: tuple[int, ...]


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[str, ...]


class Unsuback(msgspec.Struct, frozen=True):
    packet_id: int


class Qos2Step(msgspec.Struct, frozen=True):
    """PUBREC, PUBREL or PUBCOMP (kind 5, 6, 7): parsed so that the server can refuse them knowingly."""

    kind: int
    packet_id: int


class Pingreq(msgspec.Struct, frozen=True):
    pass


class Pingresp(msgspec.Struct, frozen=True):
    pass


class Disconnect(msgspec.Struct, frozen=True):
    pass


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Qos2Step
    | Pingreq
    | Pingresp
    | Disconnect
)


# --- bytes to packets ------------------------------------------------------------------------------------------------


class Parser:
    """One direction of one connection."""

    def __init__(self, limit_bytes: int = PACKET_LIMIT_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit_bytes
        self.before_error: list[Packet] = []

    @property
    def is_empty(self) -> bool:
        """No part of a packet is waiting for the rest of it."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that `data` completes. Raises MalformedPacket; the parser is then of no further use."""
        buffer = self._buffer
        buffer += data
        packets: list[Packet] = []
        start = 0
        try:
            while (header := _frame(buffer, start, self._limit)) is not None:
                body_start, end = header
                if end > len(buffer):
                    break
                packets.append(_decode(buffer[start], bytes(buffer[body_start:end])))
                start = end
        except MalformedPacket:
            self.before_error = packets
            raise
        if start:
            del buffer[:start]
        return packets


def _frame(buffer: bytearray, start: int, limit: int) -> tuple[int, int] | None:
    """(start of the body, end of the packet), or None while the fixed header is incomplete (2.2.3)."""
    position = start + 1
    length = 0
    for shift in (0, 7, 14, 21):
        if position >= len(buffer):
            return None
        byte = buffer[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if not byte & 0x80:
            end = position + length
            if end - start > limit:
                raise MalformedPacket(f"packet of {end - start} bytes is above the limit of {limit}")
            return position, end
    raise MalformedPacket("remaining length has more than four bytes")


class _Reader:
    """Reads one packet's body from front to back."""

    __slots__ = ("_body", "position")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.position = 0

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._body):
            raise MalformedPacket("packet ends inside a field")
        taken = self._body[self.position : end]
        self.position = end
        return taken

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        """A UTF-8 string without U+0000 or surrogates (1.5.3)."""
        try:
            value = self.binary().decode()
        except UnicodeDecodeError as error:
            raise MalformedPacket("a string is not UTF-8") from error
        if "\0" in value:
            raise MalformedPacket("a string contains U+0000")
        return value

    def packet_id(self) -> int:
        value = self.u16()
        if value == 0:
            raise MalformedPacket("packet id is 0")
        return value

    @property
    def has_more(self) -> bool:
        return self.position < len(self._body)

    def rest(self) -> bytes:
        taken = self._body[self.position :]
        self.position = len(self._body)
        return taken

    def end(self) -> None:
        if self.has_more:
            raise MalformedPacket("packet has bytes after its last field")


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    if kind == 3:
        return _decode_publish(flags, body)
    if kind == 4 and len(body) == 2 and flags == 0:  # by far the most frequent beside PUBLISH
        packet_id = (body[0] << 8) | body[1]
        if packet_id:
            return Puback(packet_id)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise MalformedPacket(f"packet type {kind} is reserved")
    if flags != (2 if kind in (6, 8, 10) else 0):
        raise MalformedPacket(f"flags {flags:04b} are not allowed on packet type {kind}")
    reader = _Reader(body)
    packet = decoder(reader)
    reader.end()
    return packet


def _decode_publish(flags: int, body: bytes) -> Publish:
    qos = (flags >> 1) & 3
    if qos == 3:
        raise MalformedPacket("QoS 3 does not exist")
    if qos == 0 and flags & 8:
        raise MalformedPacket("DUP on QoS 0")
    reader = _Reader(body)
    topic = reader.text()
    packet_id = reader.packet_id() if qos else 0
    return Publish(topic, reader.rest(), qos, packet_id, bool(flags & 8), bool(flags & 1))


def _decode_connect(reader: _Reader) -> Connect:
    protocol = reader.text()
    level = reader.u8()
    if protocol != "MQTT" or level != 4:
        reader.rest()  # the layout of another version is not ours to judge
        return Connect("", protocol=protocol, level=level)
    flags = reader.u8()
    if flags & 1:
        raise MalformedPacket("reserved CONNECT flag is set")
    keep_alive = reader.u16()
    client_id = reader.text()
    will = _decode_will(flags, reader)
    has_username, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if has_password and not has_username:
        raise MalformedPacket("password without user name")
    username = reader.text() if has_username else None
    password = reader.binary() if has_password else None
    return Connect(client_id, username, password, bool(flags & 2), keep_alive, will)


def _decode_will(flags: int, reader: _Reader) -> Will | None:
    qos, retain = (flags >> 3) & 3, bool(flags & 0x20)
    if not flags & 4:
        if qos or retain:
            raise MalformedPacket("will flags without a will")
        return None
    if qos == 3:
        raise MalformedPacket("QoS 3 does not exist")
    return Will(reader.text(), reader.binary(), qos, retain)


def _decode_subscribe(reader: _Reader) -> Subscribe:
    packet_id = reader.packet_id()
    filters: list[tuple[str, int]] = []
    while reader.has_more:
        topic_filter, qos = reader.text(), reader.u8()
        if qos > 2:
            raise MalformedPacket("requested QoS above 2")
        filters.append((topic_filter, qos))
    if not filters:
        raise MalformedPacket("SUBSCRIBE without a filter")
    return Subscribe(packet_id, tuple(filters))


def _decode_unsubscribe(reader: _Reader) -> Unsubscribe:
    packet_id = reader.packet_id()
    filters: list[str] = []
    while reader.has_more:
        filters.append(reader.text())
    if not filters:
        raise MalformedPacket("UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, tuple(filters))


def _decode_connack(reader: _Reader) -> Connack:
    flags, code = reader.u8(), reader.u8()
    if flags > 1:
        raise MalformedPacket("reserved CONNACK flags are set")
    return Connack(code, bool(flags))


_DECODERS: dict[int, Callable[[_Reader], Packet]] = {
    1: _decode_connect,
    2: _decode_connack,
    4: lambda reader: Puback(reader.packet_id()),
    5: lambda reader: Qos2Step(5, reader.packet_id()),
    6: lambda reader: Qos2Step(6, reader.packet_id()),
    7: lambda reader: Qos2Step(7, reader.packet_id()),
    8: _decode_subscribe,
    9: lambda reader: Suback(reader.packet_id(), tuple(reader.rest())),
    10: _decode_unsubscribe,
    11: lambda reader: Unsuback(reader.packet_id()),
    12: lambda _: Pingreq(),
    13: lambda _: Pingresp(),
    14: lambda _: Disconnect(),
}


# --- packets to bytes ------------------------------------------------------------------------------------------------


def encode(packet: Packet) -> bytes:
    """The packet's bytes. Raises ValueError for a field that does not fit the wire."""
    match packet:
        case Publish():
            return encode_publish(packet)
        case Puback(packet_id):
            return b"\x40\x02" + _U16.pack(packet_id)
        case Connack(code, session_present):
            return bytes((0x20, 2, session_present, code))
        case Suback(packet_id, codes):
            return _framed(0x90, _U16.pack(packet_id) + bytes(codes))
        case Unsuback(packet_id):
            return b"\xb0\x02" + _U16.pack(packet_id)
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            return b"\xe0\x00"
        case Qos2Step(kind, packet_id):
            return bytes((kind << 4 | (2 if kind == 6 else 0), 2)) + _U16.pack(packet_id)
        case Subscribe(packet_id, filters):
            body = b"".join(_text(topic_filter) + bytes((qos,)) for topic_filter, qos in filters)
            return _framed(0x82, _U16.pack(packet_id) + body)
        case Unsubscribe(packet_id, names):
            return _framed(0xA2, _U16.pack(packet_id) + b"".join(map(_text, names)))
        case Connect():
            return _encode_connect(packet)


def encode_publish(packet: Publish) -> bytes:
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    topic = packet.topic.encode()
    head = _U16.pack(len(topic)) + topic + (_U16.pack(packet.packet_id) if packet.qos else b"")
    return b"".join((bytes((first,)), _length(len(head) + len(packet.payload)), head, packet.payload))


def _encode_connect(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    parts: list[bytes] = [_text(packet.client_id)]
    if packet.will is not None:
        flags |= 4 | packet.will.qos << 3 | packet.will.retain << 5
        parts += [_text(packet.will.topic), _binary(packet.will.payload)]
    if packet.username is not None:
        flags |= 0x80
        parts.append(_text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        parts.append(_binary(packet.password))
    head = _text(packet.protocol) + bytes((packet.level, flags)) + _U16.pack(packet.keep_alive_secs)
    return _framed(0x10, head + b"".join(parts))


def _framed(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _length(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    if len(encoded) > 4:
        raise ValueError("packet too large for MQTT")
    return bytes(encoded)


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError("a field of an MQTT packet is at most 65,535 bytes")
    return _U16.pack(len(value)) + value


# --- topic filters ---------------------------------------------------------------------------------------------------


def filter_matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription takes a topic: `+` one level, `#` the rest (4.7)."""
    return _levels_match(topic_filter.split("/"), topic.split("/"))


def _levels_match(wanted: Sequence[str], given: Sequence[str]) -> bool:
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)
