"""Topics and property bags, to the letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_module import Incoming
from edge_module.wire import (
    Address,
    DesiredPatch,
    MethodRequest,
    TwinResponse,
    decode,
    decode_bag,
    encode_bag,
)

ADDRESS = Address("hub.example", "edge", "echo")


def test_an_input_topic_gives_sender_properties_and_system_properties() -> None:
    topic = (
        "devices/edge/modules/echo/inputs/in1/a%20b=1%2F2&plus=x+y&empty=&bare"
        "&%24.cdid=dev&%24.cmid=sender&%24.mid=m%261&%24.ct=application%2Fjson&%24.ce=utf-8&%24.ctime=2026-11-23T18:00:00Z"
        "&%24.schema=s"
    )
    assert decode(topic, b"body") == Incoming(
        input="in1",
        body=b"body",
        properties={"a b": "1/2", "plus": "x+y", "empty": "", "bare": ""},
        device="dev",
        module="sender",
        message_id="m&1",
        content_type="application/json",
        content_encoding="utf-8",
        created="2026-11-23T18:00:00Z",
    )


@pytest.mark.parametrize("topic", ["devices/edge/modules/echo/inputs/in1", "devices/edge/modules/echo/inputs/in1/"])
def test_an_input_topic_without_properties_is_read(topic: str) -> None:
    assert decode(topic, b"") == Incoming(input="in1", body=b"")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$iothub/twin/res/200/?$rid=7", TwinResponse(200, "7", b"x")),
        ("$iothub/twin/res/204/?$rid=7&$version=3", TwinResponse(204, "7", b"x")),
        ("$iothub/twin/PATCH/properties/desired/?$version=12", DesiredPatch(12)),
        ("$iothub/methods/POST/do/it/?$rid=a-b", MethodRequest("do/it", "a-b", b"x")),
        ("$iothub/twin/res/abc/?$rid=7", None),
        ("$iothub/twin/res/200/", None),
        ("devices/edge/messages/devicebound/x", None),
        ("something/else", None),
    ],
)
def test_other_topics_are_told_apart(topic: str, expected: object) -> None:
    assert decode(topic, b"x") == expected


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(_TEXT, _TEXT, max_size=5))
def test_a_bag_is_read_back_as_it_was_written(properties: dict[str, str]) -> None:
    bag = encode_bag(properties.items())
    assert decode_bag(bag) == properties
    assert not set(bag) & set("/+# ")


def test_an_event_topic_carries_system_properties_first() -> None:
    assert ADDRESS.event_topic([("$.on", "out/1"), ("$.mid", "5")], {"k": "v w"}) == (
        "devices/edge/modules/echo/messages/events/%24.on=out%2F1&%24.mid=5&k=v%20w"
    )
