"""The loss-free data path, over TLS sockets, with the module as a process of its own."""

import asyncio
import json
import signal

import pytest

from edge_module.kill_points import STEPS
from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import Input, ScriptedHub


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
