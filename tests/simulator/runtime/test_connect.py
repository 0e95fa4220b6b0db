"""CONNECT: return codes, tokens, takeover, limits (edgeHub's MqttUsernameParser, authenticators, ConnectionManager)."""

import base64
from pathlib import Path

import aiohttp
import pytest

from simulator.runtime import LocalEdge, RuntimeConfig
from simulator.runtime.codec import Connack, Connect, Pingreq, Pingresp, Publish, Will, encode
from tests.simulator.runtime.conftest import ROUTES
from tests.simulator.runtime.raw_client import RawClient
from tests.waiting import until

_BOTH_KEYS = ("primaryKey", "secondaryKey")


async def test_a_module_and_a_device_with_their_own_keys_are_accepted(edge: LocalEdge) -> None:
    for client in (RawClient(edge, "local-edge", "m"), RawClient(edge, "leaf")):
        assert await client.connect() == Connack(0, False)
        client.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol": "MQIsdp", "level": 3}, 1),
        ({"level": 5}, 1),
        ({"username": None, "password": None}, 3),
        ({"username": ""}, 3),
        ({"username": "hub/leaf"}, 3),
        ({"username": "hub/leaf/"}, 3),
        ({"username": "hub/leaf/?DeviceClientType=x"}, 3),
        ({"username": "hub//?api-version=1"}, 3),
        ({"username": "hub/leaf/m/n/?api-version=1"}, 3),
        ({"client_id": "Leaf"}, 5),
        ({"client_id": "leaf/m"}, 5),
        ({"password": None}, 5),
        ({"password": b"secret"}, 5),
        ({"password": b"SharedAccessSignature  sr=a&sig=b"}, 5),
        ({"password": b"\xff\xfe"}, 5),
    ],
)
async def test_refusals_have_the_real_return_codes_and_close(
    edge: LocalEdge, changes: dict[str, object], code: int
) -> None:
    client = RawClient(edge, "leaf")
    assert (await client.connect(**changes)).code == code
    await client.expect_close()


async def test_the_hub_part_of_the_user_name_is_not_looked_at(edge: LocalEdge) -> None:
    client = RawClient(edge, "leaf")
    assert (await client.connect(username="else.where/leaf/api-version=2019-10-01&x=1")).code == 0
    client.close()


async def test_tokens_are_judged_by_key_audience_and_expiry(edge: LocalEdge) -> None:
    module = RawClient(edge, "local-edge", "m")
    parent, own = edge.registry.get("local-edge"), edge.registry.get("local-edge", "m")
    other = edge.registry.get("leaf")
    assert parent is not None
    assert own is not None
    assert other is not None
    tokens = {
        "secondary key": (module.token(key=own.keys[1]), 0),
        "the parent device's key": (module.token(key=parent.keys[1]), 0),
        "another identity's key": (module.token(key=other.keys[0]), 5),
        "the gateway's name as host": (module.token(uri=f"{edge.gateway_host}/devices/Local-Edge/modules/M"), 0),
        "another host": (module.token(uri="x.azure-devices.net/devices/local-edge/modules/m"), 5),
        "another audience": (module.token(uri=f"{edge.config.hub_host_name}/devices/local-edge"), 5),
        "expired, within the grace": (module.token(expires_in_secs=-5), 0),
        "expired": (module.token(expires_in_secs=-600), 5),
    }
    for name, (token, code) in tokens.items():
        client = RawClient(edge, "local-edge", "m")
        assert (await client.connect(password=token.encode())).code == code, name
        client.close()


async def test_an_unknown_and_a_disabled_identity_are_refused(edge: LocalEdge) -> None:
    stranger = RawClient(edge, "stranger")
    assert (await stranger.connect()).code == 5
    edge.registry.ensure("leaf", enabled=False)
    assert (await RawClient(edge, "leaf").connect()).code == 5


async def test_the_first_packet_must_be_connect_and_only_the_first(edge: LocalEdge) -> None:
    early = await RawClient(edge, "leaf").open()
    early.send(Pingreq())
    await early.expect_close()
    assert early.received == []
    async with RawClient(edge, "leaf") as client:
        client.send(Connect("leaf", client.username, client.token().encode()))
        await client.expect_close()


async def test_packets_sent_before_connack_are_handled_after_it(edge: LocalEdge) -> None:
    client = await RawClient(edge, "leaf").open()
    connect = Connect("leaf", client.username, client.token().encode())
    client.send_bytes(encode(connect) + encode(Publish(client.telemetry(), b"{}", 1, 9)))
    await client.expect(Connack)
    await until(lambda: edge.stats()["messages_received"] == 1)
    client.close()


async def test_the_second_client_of_an_id_gets_connack_and_the_first_is_closed(edge: LocalEdge) -> None:
    first = RawClient(edge, "leaf")
    await first.connect()
    async with RawClient(edge, "leaf") as second:
        await first.expect_close()
        await second.publish_acked(second.telemetry())
        assert edge.stats()["clients"] == ["leaf"]


async def test_above_the_client_limit_connack_is_0_but_nothing_is_bound(tmp_path: Path) -> None:
    config = RuntimeConfig(state_dir=tmp_path, max_clients=1)
    async with LocalEdge(config) as edge:
        edge.set_edge_hub_config(ROUTES)
        await edge.add_device("leaf")
        await edge.add_module("m")
        async with RawClient(edge, "leaf"), RawClient(edge, "local-edge", "m") as beyond:
            await beyond.subscribe_inputs()
            await beyond.subscribe("$iothub/twin/res/#")
            await beyond.publish_acked("$iothub/twin/GET/?$rid=1", b" ")
            await beyond.publish_acked(beyond.telemetry())
            assert beyond.received == []
            assert edge.stats()["clients"] == ["leaf"]
            assert edge.stats()["messages_received"] == 1


async def test_a_stored_token_that_expires_closes_the_connection_at_the_next_check(tmp_path: Path) -> None:
    async with LocalEdge(RuntimeConfig(state_dir=tmp_path, time_scale=600)) as edge:
        await edge.add_device("leaf")
        client = RawClient(edge, "leaf")
        assert (await client.connect(password=client.token(expires_in_secs=1).encode())).code == 0
        await client.expect_close()


async def test_keep_alive_ends_a_silent_connection_after_one_and_a_half_times(edge: LocalEdge) -> None:
    client = RawClient(edge, "leaf")
    await client.connect(keep_alive_secs=1)
    await client.expect_close()


async def test_a_will_is_published_on_an_abnormal_end_only(edge: LocalEdge) -> None:
    for goodbye, expected in ((b"\xe0\x00", 0), (b"", 1)):
        client = RawClient(edge, "leaf")
        await client.connect(will=Will(client.telemetry(), b"gone", 1))
        client.send_bytes(goodbye)
        await client.settle() if not goodbye else await client.expect_close()
        client.close()
        await until(lambda: not edge.stats()["clients"])
        assert edge.stats()["messages_received"] == expected


async def test_session_present_tells_of_a_stored_session_and_clean_deletes_it(edge: LocalEdge) -> None:
    client = RawClient(edge, "leaf")
    assert not (await client.connect()).session_present
    await client.subscribe("devices/leaf/messages/devicebound/#")
    for changes, present in (({}, True), ({"clean_session": True}, False), ({}, False)):
        answer = await (client := RawClient(edge, "leaf")).connect(**changes)
        assert answer.session_present is present
    client.close()


async def test_every_filter_is_granted_with_at_most_qos_1(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as client:
        assert (await client.subscribe("anything/+/at/all/#", qos=2)).codes == (1,)
        assert (await client.subscribe("$share/group/topic", qos=0)).codes == (0,)
        await client.unsubscribe("never/subscribed")


async def test_keys_are_what_a_connection_string_carries(edge: LocalEdge) -> None:
    parts = dict(part.split("=", 1) for part in (await edge.add_device("leaf")).split(";"))
    identity = edge.registry.get("leaf")
    assert identity is not None
    assert base64.b64decode(parts["SharedAccessKey"]) == identity.keys[0]
    assert parts["GatewayHostName"] == edge.gateway_host


@pytest.mark.parametrize(
    "change",
    [
        {"status": "disabled"},
        {"authentication": {"symmetricKey": {key: base64.b64encode(b"another").decode() for key in _BOTH_KEYS}}},
    ],
)
async def test_an_open_connection_ends_when_the_hub_does_not_know_its_token_any_more(
    edge: LocalEdge, change: dict[str, object]
) -> None:
    client = RawClient(edge, "local-edge", "m")
    assert (await client.connect()).code == 0
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(edge.control_socket))) as session,
        session.put("http://edge/devices/local-edge/modules/m", json=change) as answer,
    ):
        assert answer.status == 200
    await client.expect_close()


async def test_an_open_connection_outlives_one_new_key_as_long_as_the_other_made_its_token(edge: LocalEdge) -> None:
    client = RawClient(edge, "local-edge", "m")
    own = edge.registry.get("local-edge", "m")
    assert own is not None
    assert (await client.connect(password=client.token(key=own.keys[1]).encode())).code == 0
    edge.registry.ensure("local-edge", "m", primary_key=base64.b64encode(b"another").decode())
    edge.hub.identity_changed("local-edge/m")
    client.send(Pingreq())
    assert await client.expect(Pingresp) == Pingresp()
    client.close()
