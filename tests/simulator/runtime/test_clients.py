"""Foreign clients: the official device SDK, unmodified, and paho-mqtt."""

import asyncio
import contextlib
import gc
import os
import queue
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulator.runtime import LocalEdge
from tests.simulator.runtime.raw_client import RawClient
from tests.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse
    from azure.iot.device.exceptions import ClientError


# The SDK asks for TLS 1.2, and uses paho's older callbacks, in ways that are deprecated; it leaves socket pairs behind.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


def shut_down(client: Any) -> None:
    """The SDK disconnects twice, and now and then finds the second time that it is not connected."""
    with contextlib.suppress(ClientError):
        client.shutdown()


@pytest.fixture(autouse=True)
def _sockets_left_behind() -> Iterator[None]:
    """Collects what the SDK leaves while its warnings are still ours to ignore."""
    yield
    gc.collect()


@pytest.fixture
async def sdk_module(edge: LocalEdge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A connected module client, made as customers make it. It blocks, so it lives in threads here."""
    for name, value in (await edge.add_module("m")).items():
        monkeypatch.setenv(name, value)
    assert os.environ["IOTEDGE_MODULEID"] == "m"
    client = await asyncio.to_thread(IoTHubModuleClient.create_from_edge_environment)
    await asyncio.to_thread(client.connect)
    yield client
    await asyncio.to_thread(shut_down, client)


@pytest.fixture
async def sdk_device(edge: LocalEdge) -> AsyncIterator[Any]:
    connection_string = await edge.add_device("leaf")
    client = IoTHubDeviceClient.create_from_connection_string(
        connection_string, server_verification_cert=edge.ca_file.read_text()
    )
    await asyncio.to_thread(client.connect)
    yield client
    await asyncio.to_thread(shut_down, client)


async def test_a_message_goes_from_an_sdk_device_to_an_sdk_module(
    edge: LocalEdge, sdk_module: Any, sdk_device: Any
) -> None:
    received: queue.Queue[Any] = queue.Queue()
    await asyncio.to_thread(setattr, sdk_module, "on_message_received", received.put)
    message: Any = Message(  # type: ignore[no-untyped-call]  # the SDK is untyped
        '{"t": 1}', message_id="7", content_type="application/json", content_encoding="utf-8"
    )
    message.custom_properties["k"] = "a=b & ü"
    await asyncio.to_thread(sdk_device.send_message, message)
    found = await asyncio.to_thread(received.get, timeout=10)
    assert (found.input_name, found.data, found.message_id) == ("one", b'{"t": 1}', "7")
    assert found.custom_properties == {"k": "a=b & ü", "$.cdid": "leaf"}
    assert (found.content_type, found.content_encoding) == ("application/json", "utf-8")


async def test_an_sdk_module_reads_reports_and_hears_of_its_twin(edge: LocalEdge, sdk_module: Any) -> None:
    patches: queue.Queue[Any] = queue.Queue()
    await asyncio.to_thread(setattr, sdk_module, "on_twin_desired_properties_patch_received", patches.put)
    assert await asyncio.to_thread(sdk_module.get_twin) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    await asyncio.to_thread(sdk_module.patch_twin_reported_properties, {"health": {"state": "ok"}})
    assert edge.module_reported("m") == {"health": {"state": "ok"}}
    version = edge.set_module_desired("m", {"limit": 3, "gone": None})
    assert await asyncio.to_thread(patches.get, timeout=10) == {"limit": 3, "gone": None, "$version": version}


async def test_an_sdk_module_answers_methods(edge: LocalEdge, sdk_module: Any) -> None:
    def answer(request: Any) -> None:
        sdk_module.send_method_response(MethodResponse.create_from_method_request(request, 201, [request.payload]))

    await asyncio.to_thread(setattr, sdk_module, "on_method_request_received", answer)
    assert await edge.invoke_method("m", "echo", {"x": 1}) == (201, [{"x": 1}])
    assert await edge.invoke_method("m", "echo") == (201, [None])


async def test_an_sdk_module_keeps_receiving_after_it_lost_its_connection(
    edge: LocalEdge, sdk_module: Any, sdk_device: Any
) -> None:
    received: queue.Queue[Any] = queue.Queue()
    await asyncio.to_thread(setattr, sdk_module, "on_message_received", received.put)
    edge.hub.close_client("local-edge/m", "a test")
    await until(lambda: "local-edge/m" in edge.stats()["clients"])
    await asyncio.to_thread(sdk_device.send_message, "again")
    assert (await asyncio.to_thread(received.get, timeout=10)).data == b"again"


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_paho_with_manual_acknowledgement_over_either_tls(edge: LocalEdge, tls: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(edge.ca_file))
    context.minimum_version = context.maximum_version = tls
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[paho.MQTTMessage]()
    client = paho.Client(CallbackAPIVersion.VERSION2, "local-edge/m", clean_session=False, manual_ack=True)
    client.tls_set_context(context)
    credentials = RawClient(edge, "local-edge", "m")
    client.username_pw_set(credentials.username, credentials.token())

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, message)

    client.on_message = on_message
    await asyncio.to_thread(client.connect, edge.gateway_host, 8883)
    client.loop_start()
    try:
        client.subscribe("devices/local-edge/modules/m/inputs/#", 1)
        await until(lambda: bool(edge.hub.clients) and next(iter(edge.hub.clients.values())).features.inputs)
        async with RawClient(edge, "leaf") as leaf:
            await leaf.publish_acked(leaf.telemetry(), b"1")
        message = await asyncio.wait_for(arrived.get(), 10)
        assert (message.payload, message.mid, message.dup) == (b"1", 1, False)
        assert edge.stats()["queued_total"] == 1
        client.ack(message.mid, message.qos)
        await until(lambda: edge.stats()["queued_total"] == 0)
    finally:
        await asyncio.to_thread(client.disconnect)
        await asyncio.to_thread(client.loop_stop)
