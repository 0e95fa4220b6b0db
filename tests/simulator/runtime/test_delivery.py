"""What a module sees on its inputs: the window of one, copies, takeover, order, priorities, time to live."""

import time

import pytest

from simulator.runtime import LocalEdge
from simulator.runtime.codec import Disconnect, Puback, Publish
from tests.simulator.runtime.conftest import SCALE, hub_config
from tests.simulator.runtime.raw_client import INPUTS, RawClient
from tests.waiting import until

ACK_TIMEOUT_SECS = 30 / SCALE


async def receive(client: RawClient) -> bytes:
    """The next input message, acknowledged."""
    packet = await client.expect(Publish)
    client.acknowledge()
    return packet.payload


async def test_an_input_looks_as_edgehub_sends_it(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        bag = "%24.mid=7&k=a%20b&%24.ct=application%2Fjson&%24.on=o&%24.ifid=i&null"
        await leaf.publish_acked(leaf.telemetry(bag), b"[1]")
        packet = await module.expect(Publish)
        path, _, found = packet.topic.rpartition("/")
        assert path == "devices/local-edge/modules/m/inputs/one"
        assert found == "k=a%20b&null&%24.mid=7&%24.ct=application%2Fjson&%24.cdid=leaf"
        assert (packet.packet_id, packet.dup, packet.retain, packet.qos) == (1, False, False, 1)
        assert packet.payload == b"[1]"


async def test_one_message_is_unacknowledged_per_connection_over_all_inputs(edge: LocalEdge) -> None:
    async with (
        RawClient(edge, "local-edge", "m") as module,
        RawClient(edge, "leaf") as leaf,
        RawClient(edge, "local-edge", "sender") as sender,
    ):
        await module.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry(), b"1")
        first = await module.expect(Publish)
        await sender.publish_acked(sender.telemetry("%24.on=two"), b"2")
        await leaf.publish_acked(leaf.telemetry(), b"3")
        for _ in range(5):
            await module.settle()
        assert module.received == []
        module.acknowledge()
        others = {await receive(module), await receive(module)}
        assert first.payload == b"1"
        assert others == {b"2", b"3"}
        await until(lambda: edge.stats()["queued_total"] == 0)


async def test_a_twin_answer_behind_an_unacknowledged_input_takes_the_second_puback(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe(INPUTS.format("m"), "$iothub/twin/res/#")
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await module.expect(Publish)
        module.publish("$iothub/twin/GET/?$rid=1", b" ")
        twin = await module.expect(Publish)
        assert twin.topic == "$iothub/twin/res/200/?$rid=1"
        assert twin.packet_id == 1
        # This PUBACK was meant for the twin; it completes the input, the oldest.
        module.acknowledge()
        await until(lambda: edge.stats()["queued_total"] == 0)
        await leaf.publish_acked(leaf.telemetry(), b"2")
        await module.expect(Publish)
        module.acknowledge()  # completes the twin packet
        await module.settle()
        assert edge.stats()["queued_total"] == 1
        module.acknowledge()
        await until(lambda: edge.stats()["queued_total"] == 0)


async def test_a_twin_answer_is_written_before_the_puback_of_its_request(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe("$iothub/twin/res/#")
        module.publish("$iothub/twin/GET/?$rid=1", b" ")
        module.publish("$iothub/twin/PATCH/properties/reported/?$rid=2", b'{"a":1}')
        await module.settle()
        kinds = [type(packet) for packet in module.received]
        assert kinds == [Publish, Puback, Publish, Puback]


async def test_after_the_timeout_the_same_message_comes_again_and_each_copy_needs_its_puback(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry("n=1"), b"1")
        first = await module.expect(Publish)
        second = await module.expect(Publish)
        assert first == second
        assert not second.dup
        module.acknowledge()  # completes the copy that timed out, which is nobody's any more
        await module.settle()
        assert edge.stats()["queued_total"] == 1
        module.acknowledge()
        await until(lambda: edge.stats()["queued_total"] == 0)
        assert edge.stats()["delivery_retries"] == {"m/one": 1}


async def test_redelivery_keeps_the_order_of_arrival(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        for number in range(25):
            await leaf.publish_acked(leaf.telemetry(), b"%d" % number)
        await module.subscribe_inputs()
        seen = [(await module.expect(Publish)).payload for _ in range(2)]  # the first times out
        assert seen == [b"0", b"0"]
        module.acknowledge()
        module.acknowledge()
        assert [await receive(module) for _ in range(24)] == [b"%d" % n for n in range(1, 25)]


async def test_a_takeover_cancels_the_message_in_flight_and_retries_soon(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as old, RawClient(edge, "leaf") as leaf:
        await old.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await old.expect(Publish)
        async with RawClient(edge, "local-edge", "m") as new:
            await old.expect_close()
            started = time.monotonic()
            assert await receive(new) == b"1"
            assert time.monotonic() - started < ACK_TIMEOUT_SECS / 2


async def test_after_a_disconnect_the_message_in_flight_waits_out_its_timer(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as leaf:
        module = RawClient(edge, "local-edge", "m")
        await module.connect()
        await module.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await module.expect(Publish)
        started = time.monotonic()
        module.send(Disconnect())
        await module.expect_close()
        async with RawClient(edge, "local-edge", "m") as again:
            assert await receive(again) == b"1"
            assert time.monotonic() - started > ACK_TIMEOUT_SECS * 0.9


async def test_unsubscribing_while_connected_discards_what_is_queued(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await receive(module)
        await module.unsubscribe(INPUTS.format("m"))
        await leaf.publish_acked(leaf.telemetry(), b"2")
        await until(lambda: edge.stats()["messages_dropped"].get("invalid") == 1)
        assert edge.stats()["queued_total"] == 0


async def test_messages_for_an_absent_or_deaf_module_stay_queued(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as leaf, RawClient(edge, "local-edge", "m") as module:
        # Acknowledged, yet no feature: the filter is not of the form devices/+/modules/+/#.
        await module.subscribe("devices/local-edge/modules/m/inputs/one")
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await until(lambda: edge.stats()["delivery_retries"].get("m/one", 0) > 1)
        assert edge.stats()["queues"]["m/one"] == {"2000000000": 1}
        await module.subscribe("devices/local-edge/modules/m/#")
        assert await receive(module) == b"1"


async def test_the_smallest_priority_number_goes_first_and_one_endpoint_gets_one_copy(edge: LocalEdge) -> None:
    target = 'INTO BrokeredEndpoint("/modules/m/inputs/one")'
    edge.set_edge_hub_config(
        hub_config(
            default=f"FROM /messages/* {target}",
            urgent={"route": f"FROM /messages/* WHERE p = '1' {target}", "priority": 1, "timeToLiveSecs": 3600},
            middle={"route": f"FROM /messages/* WHERE is_defined(p) {target}", "priority": 5},
        )
    )
    async with RawClient(edge, "leaf") as leaf:
        for name, bag in (("a", ""), ("b", "p=2"), ("c", "p=1"), ("d", ""), ("e", "p=1")):
            await leaf.publish_acked(leaf.telemetry(bag), name.encode())
        assert edge.stats()["queues"]["m/one"] == {"1": 2, "5": 1, "2000000000": 2}
        async with RawClient(edge, "local-edge", "m") as module:
            await module.subscribe_inputs()
            # The pump may have taken "a" before the others came: a batch under way is not overtaken.
            order = b"".join([await receive(module) for _ in range(5)])
            assert order in (b"cebad", b"acebd")


async def test_a_message_past_its_time_to_live_is_dropped_and_counted(edge: LocalEdge) -> None:
    target = 'INTO BrokeredEndpoint("/modules/absent/inputs/i")'
    edge.set_edge_hub_config(
        hub_config(
            short={"route": f"FROM /messages/* {target}", "timeToLiveSecs": 2},  # 0.1 s at this scale
            long='FROM /messages/* INTO BrokeredEndpoint("/modules/m/inputs/one")',
            ttl_secs=-1,
        )
    )
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await leaf.publish_acked(leaf.telemetry(), b"2")
        await edge.add_module("absent")
        await until(lambda: edge.hub.queues.remove_expired(time.time()) > 0)
        assert "m/one" in edge.stats()["queues"]
        async with RawClient(edge, "local-edge", "m") as module:
            await module.subscribe_inputs()
            assert [await receive(module), await receive(module)] == [b"1", b"2"]


async def test_a_global_time_to_live_of_0_expires_everything(edge: LocalEdge) -> None:
    edge.set_edge_hub_config(
        hub_config(r='FROM /messages/* INTO BrokeredEndpoint("/modules/m/inputs/one")', ttl_secs=0)
    )
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry())
        await until(lambda: edge.stats()["messages_dropped"].get("ttl_expiry") == 1)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("devices/local-edge/modules/sender/messages/events/%24.on=nowhere", "no_route"),
        ("devices/leaf/messages/events/a=1&", "bad_properties"),
        ("devices/leaf/messages/events/a=b=c", "bad_properties"),
        ("devices/leaf/messages/events/=x", "bad_properties"),
        ("devices/leaf/messages/events/key=1&KEY=2", "bad_properties"),
        ("devices/leaf/messages/other/", "unknown_topic"),
        ("some/topic", "unknown_topic"),
    ],
)
async def test_what_edgehub_drops_it_acknowledges(edge: LocalEdge, topic: str, reason: str) -> None:
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(topic)
        assert edge.stats()["messages_dropped"] == {reason: 1}
        assert edge.stats()["queued_total"] == 0


async def test_a_message_that_is_too_large_with_its_properties_is_acknowledged_and_lost(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry(), b"x" * 262_050)
        assert edge.stats()["messages_dropped"] == {"too_large": 1}
        await leaf.publish_acked(leaf.telemetry(), b"x" * 261_800)
        assert edge.stats()["queued_total"] == 1


@pytest.mark.parametrize(
    "packet",
    [
        Publish("devices/leaf/messages/events/", b"x" * 262_144, 1, 1),
        Publish("devices/leaf/messages/events/#", b"", 1, 1),
        Publish("devices/+/messages/events/", b"", 1, 1),
        Publish("$iothub/twin/GET/", b" ", 1, 1),
        Publish("$iothub/twin/DELETE/?$rid=1", b" ", 1, 1),
    ],
)
async def test_what_edgehub_cannot_bear_closes_without_an_acknowledgement(edge: LocalEdge, packet: Publish) -> None:
    async with RawClient(edge, "leaf") as leaf:
        leaf.send(packet)
        await leaf.expect_close()
        assert leaf.received == []


async def test_qos_2_is_processed_and_then_closed_and_qos_0_is_never_acknowledged(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as leaf:
        leaf.publish(leaf.telemetry(), qos=0)
        await leaf.settle()
        assert leaf.received == []
        leaf.publish(leaf.telemetry(), qos=2)
        await leaf.expect_close()
        assert leaf.received == []
        assert edge.stats()["queued_total"] == 2


async def test_dup_becomes_visible_and_mqtt_qos_0_needs_no_puback(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        leaf.publish(leaf.telemetry("mqtt-qos=0"), b"1", dup=True)
        leaf.publish(leaf.telemetry("mqtt-qos=0"), b"2")
        first, second = await module.expect(Publish), await module.expect(Publish)
        assert "mqtt-dup=true" in first.topic
        assert (first.qos, second.qos) == (0, 0)
        await until(lambda: edge.stats()["queued_total"] == 0)


async def test_a_puback_that_nobody_waits_for_is_ignored(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        module.send(Puback(1), Puback(77))
        await leaf.publish_acked(leaf.telemetry(), b"1")
        await module.expect(Publish)
        module.send(Puback(2))  # not the head's id
        await module.settle()
        assert edge.stats()["queued_total"] == 1
        module.acknowledge()
        await until(lambda: edge.stats()["queued_total"] == 0)


async def test_the_sender_is_taken_from_the_topic_not_from_the_connection(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        await leaf.publish_acked("devices/local-edge/modules/sender/messages/events/%24.on=two&%24.cdid=forged")
        packet = await module.expect(Publish)
        assert packet.topic.startswith("devices/local-edge/modules/m/inputs/two/%24.cdid=local-edge&%24.cmid=sender")


async def test_removing_a_route_drops_its_default_queue(edge: LocalEdge) -> None:
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry())
        assert edge.stats()["queued_total"] == 1
        edge.set_edge_hub_config(hub_config())
        assert edge.stats()["queued_total"] == 0
        assert edge.stats()["messages_dropped"] == {"route_removed": 1}


async def test_a_full_disk_closes_without_an_acknowledgement_and_loses_nothing_acknowledged(edge: LocalEdge) -> None:
    store = edge.hub.queues.store
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry(), b"kept")
        pages = store.read("PRAGMA page_count")[0][0]
        store.read(f"PRAGMA max_page_count={pages + 4}")
        leaf.publish(leaf.telemetry(), b"x" * 100_000)
        await leaf.expect_close()
        assert leaf.received == []
        assert edge.stats()["queued_total"] == 1
    store.read("PRAGMA max_page_count=1000000")
    async with RawClient(edge, "leaf") as leaf, RawClient(edge, "local-edge", "m") as module:
        await leaf.publish_acked(leaf.telemetry(), b"x" * 100_000)
        await module.subscribe_inputs()
        assert [await receive(module), await receive(module)] == [b"kept", b"x" * 100_000]


async def test_properties_too_long_for_a_topic_cost_that_message_alone(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        await leaf.publish_acked(leaf.telemetry("k=" + "ü" * 20_000), b"1")  # 120,000 bytes when escaped
        await leaf.publish_acked(leaf.telemetry(), b"2")
        assert await receive(module) == b"2"
        assert edge.stats()["messages_dropped"] == {"invalid": 1}


async def test_a_long_queue_of_rejected_messages_does_not_stop_the_hub(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module, RawClient(edge, "leaf") as leaf:
        await module.subscribe_inputs()
        for number in range(300):
            leaf.publish(leaf.telemetry(), b"%d" % number)
        await leaf.settle()
        await module.expect(Publish)
        await module.unsubscribe(INPUTS.format("m"))
        module.acknowledge()
        await until(lambda: edge.stats()["queued_total"] == 0)
        assert edge.stats()["messages_dropped"] == {"invalid": 299}
