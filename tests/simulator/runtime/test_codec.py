import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.runtime.codec import (
    PACKET_LIMIT_BYTES,
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
    Qos2Step,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
    filter_matches,
)

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_ID = st.integers(1, 65535)
_CONNECT = st.builds(
    Connect,
    _TEXT,
    _TEXT,
    st.none() | st.binary(max_size=40),
    st.booleans(),
    st.integers(0, 65535),
    st.none() | st.builds(Will, _TEXT, st.binary(max_size=20), st.integers(0, 2), st.booleans()),
)
_PACKETS: st.SearchStrategy[Packet] = st.one_of(
    _CONNECT,
    st.builds(Connack, st.integers(0, 5), st.booleans()),
    st.builds(Publish, _TEXT, st.binary(max_size=400), st.integers(1, 2), _ID, st.booleans(), st.booleans()),
    st.builds(Publish, _TEXT, st.binary(max_size=400)),
    st.builds(Puback, _ID),
    st.builds(Subscribe, _ID, st.lists(st.tuples(_TEXT, st.integers(0, 2)), min_size=1, max_size=4).map(tuple)),
    st.builds(Suback, _ID, st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple)),
    st.builds(Unsubscribe, _ID, st.lists(_TEXT, min_size=1, max_size=4).map(tuple)),
    st.builds(Unsuback, _ID),
    st.builds(Qos2Step, st.integers(5, 7), _ID),
    st.sampled_from([Pingreq(), Pingresp(), Disconnect()]),
)


@given(st.lists(_PACKETS, max_size=6), st.integers(1, 50))
def test_any_split_of_the_stream_gives_the_same_packets(packets: list[Packet], step: int) -> None:
    stream = b"".join(map(encode, packets))
    whole, parts = Parser(), Parser()
    assert whole.feed(stream) == packets
    parsed = [p for start in range(0, len(stream), step) for p in parts.feed(stream[start : start + step])]
    assert parsed == packets
    assert whole.is_empty
    assert parts.is_empty


@given(_PACKETS)
def test_byte_by_byte_the_packet_comes_with_its_last_byte_and_not_before(packet: Packet) -> None:
    parser, data = Parser(), encode(packet)
    for byte in data[:-1]:
        assert parser.feed(bytes((byte,))) == []
    assert parser.feed(data[-1:]) == [packet]


@given(_PACKETS, st.binary(min_size=1, max_size=1))
def test_bytes_after_the_last_field_are_refused(packet: Packet, extra: bytes) -> None:
    data = encode(packet)
    length_bytes = next(i for i in range(1, 5) if not data[i] & 0x80)
    body = data[1 + length_bytes :] + extra
    longer = bytes((data[0], len(body) & 0x7F | 0x80, len(body) >> 7)) + body
    if isinstance(packet, Publish | Suback):  # these end in bytes of any number
        assert len(Parser().feed(longer)) == 1
        return
    if isinstance(packet, Subscribe | Unsubscribe):  # more filters could follow; one byte is none
        extra = b"\0"
    with pytest.raises(MalformedPacket):
        Parser().feed(longer)


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_malformed_packet(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        Parser().feed(data)


def test_the_limit_counts_the_fixed_header_and_is_decided_by_it_alone() -> None:
    overhead = len(encode(Publish("t", b"x" * 200_000, 1, 1))) - 200_000
    largest = Publish("t", b"x" * (PACKET_LIMIT_BYTES - overhead), 1, 1)
    assert Parser().feed(encode(largest)) == [largest]
    too_large = encode(Publish("t", largest.payload + b"x", 1, 1))
    with pytest.raises(MalformedPacket, match="above the limit"):
        Parser().feed(too_large[:4])


def test_packets_before_a_malformed_one_are_kept() -> None:
    parser = Parser()
    with pytest.raises(MalformedPacket):
        parser.feed(encode(Puback(3)) + b"\xf0\x00")
    assert parser.before_error == [Puback(3)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
        b"\x38\x03\x00\x01t",  # DUP on QoS 0
        b"\x32\x05\x00\x01t\x00\x00",  # packet id 0
        b"\x30\x03\x00\x01\xff",  # topic is not UTF-8
        b"\x30\x03\x00\x01\x00",  # U+0000
        b"\x80\x05\x00\x01\x00\x00\x00",  # SUBSCRIBE with the wrong flags
        b"\x82\x02\x00\x01",  # SUBSCRIBE without a filter
        b"\x82\x06\x00\x01\x00\x01t\x03",  # requested QoS 3
        b"\xc1\x00",  # PINGREQ with flags
        b"\x00\x00",  # reserved type
        b"\x30\xff\xff\xff\xff\x01",  # five bytes of length
        b"\x10\x0c\x00\x04MQTT\x04\x43\x00\x00\x00\x00",  # reserved CONNECT flag and no user name
        b"\x10\x0c\x00\x04MQTT\x04\x42\x00\x00\x00\x00",  # password without user name
        b"\x10\x0c\x00\x04MQTT\x04\x0a\x00\x00\x00\x00",  # will QoS without a will
    ],
)
def test_what_the_standard_forbids_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        Parser().feed(data)


def test_another_protocol_version_is_a_connect_for_the_server_to_judge() -> None:
    (packet,) = Parser().feed(b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00")
    assert packet == Connect("", protocol="MQTT", level=5)
    (older,) = Parser().feed(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00")
    assert isinstance(older, Connect)
    assert older.level == 3


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
        ("#", "a", True),
        ("$iothub/twin/res/#", "$iothub/twin/res/200/?$rid=1", True),
        ("devices/d/modules/m/#", "devices/d/modules/m/inputs/i/a=1", True),
    ],
)
def test_filters_match_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert filter_matches(topic_filter, topic) is expected
