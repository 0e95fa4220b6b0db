"""Property bags, topics, user names and sizes (UrlEncodedDictionarySerializer, MessageAddressConverter)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.runtime.messages import (
    BadPropertyBag,
    Message,
    message_size,
    outbound_bag,
    parse_bag,
    split_properties,
)
from simulator.runtime.topics import (
    MalformedTwinTopic,
    MethodResponse,
    TelemetryTopic,
    TwinGet,
    TwinPatch,
    UnknownTopic,
    features_of,
    parse_inbound,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(_TEXT, st.none() | _TEXT, max_size=6))
def test_a_bag_survives_the_wire(app: dict[str, str | None]) -> None:
    assert parse_bag(outbound_bag(Message("/", app, {}, b""))) == app


def test_system_properties_keep_their_names_on_the_wire_and_output_names_stay_behind() -> None:
    app, system = split_properties(parse_bag("%24.mid=1&%24.cid=c&%24.on=o&%24.ifid=i&ack=full&plus=a+b&None=None"))
    assert app == {"plus": "a+b", "None": "None"}
    assert system == {"messageId": "1", "cid": "c", "outputName": "o", "iothub-interface-id": "i", "ack": "full"}
    assert outbound_bag(Message("/", app, system, b"")) == "plus=a%2Bb&None=None&%24.mid=1&%24.cid=c&ack=full"


def test_what_a_client_claims_about_its_sender_is_overwritten() -> None:
    app, system = split_properties(parse_bag("%24.cdid=forged"))
    assert app == {"$.cdid": "forged"}
    assert outbound_bag(Message("/", app, system | {"connectionDeviceId": "d"}, b"")) == "%24.cdid=d"


@pytest.mark.parametrize("bag", ["a=1&", "=1", "a=b=c", "&a=1"])
def test_a_bad_bag_is_refused(bag: str) -> None:
    with pytest.raises(BadPropertyBag):
        parse_bag(bag)


def test_a_null_value_resets_the_size_of_the_properties_before_it() -> None:
    assert message_size(Message("/", {"abc": "de", "f": "gh"}, {"i": "j"}, b"123")) == 13
    assert message_size(Message("/", {"abc": "de", "n": None, "f": "gh"}, {}, b"123")) == 6


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("devices/d/messages/events", TelemetryTopic("d", "", "")),
        ("devices/d/messages/events/", TelemetryTopic("d", "", "")),
        ("devices/d/messages/events/a=1&b=2", TelemetryTopic("d", "", "a=1&b=2")),
        ("devices/d/messages/events/a=1/", TelemetryTopic("d", "", "a=1")),
        ("devices/d/modules/m/messages/events/%24.on=o", TelemetryTopic("d", "m", "%24.on=o")),
        ("prefix/devices/d/messages/events/", TelemetryTopic("d", "", "")),
        ("$iothub/twin/GET/?$rid=7", TwinGet("7")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=8", TwinPatch("8")),
        ("$iothub/twin/PATCH/properties/reported/", TwinPatch(None)),
        ("$iothub/methods/res/200/?$rid=AB", MethodResponse("ab", 200)),
        ("$iothub/methods/res/fine/?$rid=1", MethodResponse("1", 400_000)),
    ],
)
def test_topics_are_understood(topic: str, expected: object) -> None:
    assert parse_inbound(topic) == expected


@pytest.mark.parametrize(
    "topic", ["devices/d/messages/events/a/b", "devices/d/messages", "$iothub/methods/res/200/", "x"]
)
def test_unknown_topics_are_told_apart_from_malformed_twin_topics(topic: str) -> None:
    with pytest.raises(UnknownTopic):
        parse_inbound(topic)


@pytest.mark.parametrize(
    "topic", ["$iothub/twin/", "$iothub/twin/GET/", "$iothub/twin/PATCH/properties/desired/?$rid=1"]
)
def test_malformed_twin_topics_are_their_own_kind(topic: str) -> None:
    with pytest.raises(MalformedTwinTopic):
        parse_inbound(topic)


def test_only_a_wide_filter_counts_as_subscribed_to_inputs() -> None:
    assert features_of({"devices/d/modules/m/inputs/#"}).inputs
    assert features_of({"devices/d/modules/m/#"}).inputs
    assert not features_of({"devices/d/modules/m/inputs/one"}).inputs
