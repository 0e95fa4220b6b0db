"""The loss-free data path, over TLS sockets, with the module as a process of its own."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from edge_module.kill_points import STEPS
from edge_module.publisher import MEMORY_MESSAGES, WINDOW_MESSAGES
from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import Input, ScriptedHub, make_pki


def said(hub: ScriptedHub) -> list[str]:
    """What a receiver that drops repeats has got, in the order of the emitted numbers."""
    emitted = [published for published in hub.once().values() if published.properties["$.on"] == "out"]
    emitted.sort(key=lambda published: int(published.properties["n"]))
    assert [int(published.properties["n"]) for published in emitted] == list(range(1, len(emitted) + 1))
    return [json.loads(published.body)["said"] for published in emitted]


async def test_inputs_are_echoed_in_order_with_the_properties_that_routes_and_receivers_need(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    await echo.start()
    await hub.deliver([Input(f"m{i}".encode(), str(i)) for i in range(20)])
    await hub.until(lambda: len(hub.outputs) == 20)
    assert said(hub) == [f"m{i}" for i in range(20)]
    properties = hub.outputs[0].properties
    assert properties.keys() == {"$.on", "$.mid", "$.ct", "$.ce", "copy", "epoch", "output", "n"}
    assert (properties["$.on"], properties["$.ct"], properties["$.ce"]) == ("out", "application/json", "utf-8")


@pytest.mark.parametrize("step", STEPS)
async def test_kill_9_at_every_step_leaves_everything_exactly_once_downstream(
    hub: ScriptedHub, echo: EchoProcess, step: str
) -> None:
    # A scale of 200 lets the 120 s that published messages are kept pass, so that pruning is a step, too.
    await echo.start(EDGEWEIR_KILL_AT=f"{step}:2", EDGEWEIR_TIME_SCALE="200")
    messages = [Input(f"m{i}".encode(), str(i)) for i in range(8)]
    delivery = asyncio.create_task(hub.deliver(messages))
    assert await echo.wait() == -signal.SIGKILL
    await echo.start()
    await delivery
    await hub.until(lambda: len(hub.once()) == 8)
    assert said(hub) == [f"m{i}" for i in range(8)]


async def test_what_was_held_on_a_lost_connection_is_acknowledged_on_the_next_one_alone(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.desired = {"$version": 1, "hold": True}
    await echo.start()
    first = await hub.attached()
    delivery = asyncio.create_task(hub.deliver([Input(b"held", "1")], ack_timeout_secs=0.2))
    await hub.until(lambda: hub.delivered_copies >= 3)
    first.close()
    await hub.until(lambda: hub.connects == 2)
    second = await hub.attached()
    before = hub.delivered_copies
    await hub.until(lambda: hub.delivered_copies > before)
    hub.desired = {"$version": 2}
    second.publish("desired", "$iothub/twin/PATCH/properties/desired/?$version=2", b"{}")
    await delivery
    await hub.until(lambda: not second.unacknowledged and bool(hub.outputs))
    assert "input 1" not in first.completed
    assert said(hub) == ["held"]


async def test_a_backlog_larger_than_memory_comes_from_disk_in_order(hub: ScriptedHub, echo: EchoProcess) -> None:
    hub.desired = {"$version": 1, "copies": 10}
    hub.acknowledges = False
    await echo.start(EDGEWEIR_TIME_SCALE="1")  # a hub that never acknowledges would be left after three seconds
    session = await hub.attached()
    await hub.deliver([Input(f"m{i}".encode(), str(i)) for i in range(MEMORY_MESSAGES // 10 + 50)])
    count = MEMORY_MESSAGES + 500
    hub.acknowledges = True
    session.close()
    await hub.until(lambda: len(hub.once()) == count)
    numbers = [int(published.properties["n"]) for published in hub.outputs[WINDOW_MESSAGES:]]
    assert numbers == list(range(1, count + 1))


async def test_a_stop_under_load_and_a_start_lose_and_repeat_nothing(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    delivery = asyncio.create_task(hub.deliver([Input(f"m{i}".encode(), str(i)) for i in range(300)]))
    for stop_after in (50, 150):
        await hub.until(lambda stop_after=stop_after: len(hub.once()) >= stop_after)  # type: ignore[misc]
        echo.send(signal.SIGTERM)
        assert await echo.wait(10) == 0
        await echo.start()
    await delivery
    await hub.until(lambda: len(hub.once()) == 300)
    assert said(hub) == [f"m{i}" for i in range(300)]


async def test_a_hub_with_a_certificate_of_another_root_is_not_trusted(
    hub: ScriptedHub, echo: EchoProcess, tmp_path: Path
) -> None:
    other, _ = make_pki(tmp_path)
    await echo.start(EdgeModuleCACertificateFile=str(other))
    await hub.until(lambda: "reason=hub_untrusted" in echo.log())
    assert hub.connects == 0
