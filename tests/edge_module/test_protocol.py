"""What edgeHub does that is inconvenient: the order of acknowledgements, copies, takeovers, refusals."""

import asyncio
import contextlib
import json
import signal
import sqlite3
from pathlib import Path

import pytest

from simulator.fault_proxy import run_fault_proxy
from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import Input, ScriptedHub
from tests.edge_module.test_data_path import said


async def until_metric(echo: EchoProcess, name: str, value: float) -> None:
    for _ in range(200):
        if f"\n{name} {float(value)}\n" in await asyncio.to_thread(echo.get, "/metrics"):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{name} never was {value}")


async def test_connect_and_subscriptions_are_those_that_the_runtime_expects(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    await echo.start(EDGEWEIR_TIME_SCALE="1")
    session = await hub.attached()
    assert session.client_id == "edge/echo"
    assert session.username.startswith(
        "hub.example/edge/echo/?api-version=2019-10-01&DeviceClientType=edgeweir-echo%2F"
    )
    assert session.password.startswith("SharedAccessSignature sr=hub.example%2Fdevices%2Fedge%2Fmodules%2Fecho&sig=")
    assert (hub.connect_flags, hub.keep_alives) == ([0xC0], [60])
    assert session.subscriptions == [
        "devices/edge/modules/echo/inputs/#",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
        "$iothub/methods/POST/#",
    ]


async def test_twin_and_method_packets_behind_an_unacknowledged_input_acknowledge_nothing_early(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.desired = {"$version": 1, "hold": True}
    await echo.start()
    session = await hub.attached()
    await hub.until(lambda: bool(hub.reported))
    await hub.until(lambda: not session.unacknowledged)
    already = len(session.completed)
    held = Input(b"held", "1")
    session.publish("input", held.topic(), held.body)
    session.publish("method", "$iothub/methods/POST/total/?$rid=r1", b"null")
    session.publish("desired", "$iothub/twin/PATCH/properties/desired/?$version=2", b"{}")
    await hub.until(lambda: "r1" in hub.method_answers)
    assert hub.method_answers["r1"] == (200, {"total": 0})
    assert session.completed[already:] == []
    hub.desired = {"$version": 3}
    session.publish("desired", "$iothub/twin/PATCH/properties/desired/?$version=3", b"{}")
    await hub.until(lambda: not session.unacknowledged)
    assert session.completed[already : already + 3] == ["input", "method", "desired"]
    await hub.until(lambda: len(hub.outputs) == 1)


async def test_a_module_stopped_for_longer_than_the_time_out_acknowledges_both_copies_with_one_effect(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    await echo.start()
    session = await hub.attached()
    await hub.until(lambda: bool(hub.reported))
    echo.send(signal.SIGSTOP)
    message = Input(b"hello", "1")
    delivery = asyncio.create_task(hub.deliver([message], ack_timeout_secs=0.5))
    await hub.until(lambda: hub.delivered_copies == 2)
    echo.send(signal.SIGCONT)
    await delivery
    await hub.until(lambda: session.completed.count("input 1") == hub.delivered_copies)
    await hub.until(lambda: len(hub.outputs) == 1)
    assert said(hub) == ["hello"]


async def test_a_module_that_refuses_for_ten_time_outs_holds_one_payload_and_acknowledges_every_copy(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.desired = {"$version": 1, "hold": True}
    await echo.start()
    session = await hub.attached()
    payload = b"x" * 200_000
    delivery = asyncio.create_task(hub.deliver([Input(payload, "1")], ack_timeout_secs=0.1))
    await hub.until(lambda: hub.delivered_copies >= 11)
    assert session.completed.count("input 1") == 0
    await until_metric(echo, "edgeweir_echo_waiting_bytes", len(payload))
    await until_metric(echo, "edgeweir_echo_waiting_messages", 1)
    await hub.until(lambda: any("told_to_hold" in json.dumps(report) for report in hub.reported))
    hub.desired = {"$version": 2}
    session.publish("desired", "$iothub/twin/PATCH/properties/desired/?$version=2", b"{}")
    await delivery
    await hub.until(lambda: session.completed.count("input 1") == hub.delivered_copies)
    await hub.until(lambda: len(hub.outputs) == 1)
    assert len(said(hub)) == 1


@pytest.mark.parametrize("code", [3, 5])
async def test_a_refused_identity_is_tried_again_until_it_is_accepted(
    hub: ScriptedHub, echo: EchoProcess, code: int
) -> None:
    hub.refuse_with.extend([code, code])
    await echo.start()
    await hub.deliver([Input(b"hello", "1")])
    assert echo.log().count("reason=hub_refused") == 2
    assert hub.connects == 1


async def test_a_first_connection_that_fails_is_tried_again(
    hub: ScriptedHub, echo: EchoProcess, unused_port: int
) -> None:
    await echo.start(EDGEWEIR_HUB_PORT=str(unused_port))
    await hub.until(lambda: echo.log().count("reason=hub_unreachable") >= 2)


async def test_a_token_renewed_under_load_loses_nothing_and_repeats_are_recognised(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    await echo.start(EDGEWEIR_SAS_TTL_SECS="1")
    await hub.attached()
    sent = []

    async def load() -> None:
        number = 0
        while hub.connects < 4:
            number += 1
            sent.append(f"m{number}")
            await hub.deliver([Input(sent[-1].encode(), str(number))])

    await load()
    await hub.until(lambda: len(hub.once()) == len(sent))
    assert said(hub) == sent
    assert "connection lost" not in echo.log()
    assert hub.disconnects == 0  # a clean DISCONNECT would stall an input for the time-out


async def test_what_came_on_a_connection_that_failed_before_it_was_subscribed_is_left_to_the_next_one(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.greetings.append(Input(b"early", "1"))
    hub.closes_at_subscribe = 1
    await echo.start()
    await hub.deliver([Input(b"other", "2")])
    await hub.until(lambda: len(hub.outputs) == 1)
    assert said(hub) == ["other"]
    await hub.deliver([Input(b"early", "1")])
    await hub.until(lambda: len(hub.outputs) == 2)
    assert said(hub) == ["other", "early"]


async def test_a_lost_connection_sends_everything_unacknowledged_again_in_order(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.acknowledges = False
    await echo.start(EDGEWEIR_TIME_SCALE="5")
    session = await hub.attached()
    await hub.deliver([Input(b"a", "1"), Input(b"b", "2")])
    await hub.until(lambda: len(hub.once()) == 2)
    hub.acknowledges = True
    session.close()
    await hub.until(lambda: len(hub.outputs) == 4)
    assert [published.properties["n"] for published in hub.outputs] == ["1", "2", "1", "2"]
    assert hub.outputs[0].body == hub.outputs[2].body


async def test_a_hub_that_stops_acknowledging_is_reported_and_connected_to_again(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.acknowledges = False
    await echo.start()
    await hub.deliver([Input(b"a", "1")])
    await hub.until(lambda: hub.connects == 2)
    assert "(hub_slow)" in echo.log()
    assert "hub_slow" in json.loads(echo.get("/healthz"))["health"]
    hub.acknowledges = True
    await hub.until(lambda: json.loads(echo.get("/healthz"))["health"] == "ok")
    assert said(hub) == ["a"]


async def test_a_connection_that_carries_nothing_any_more_is_given_up_for_a_new_one(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    """Nobody closes it, and an idle module has nothing to send: only the answer to its own ping is missing."""
    async with run_fault_proxy("127.0.0.1", hub.port) as proxy:
        await echo.start(EDGEWEIR_HUB_PORT=str(proxy.port))
        # Nothing of its own is on its way any more.
        await hub.until(lambda: bool(hub.reported))
        proxy.silence()
        await hub.until(lambda: hub.connects == 2, secs=30)
        await hub.deliver([Input(b"a", "1")])
        await hub.until(lambda: said(hub) == ["a"])


async def test_after_a_reboot_what_edgehub_acknowledged_is_published_again(
    hub: ScriptedHub, echo: EchoProcess, tmp_path: Path
) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("first\n")
    await echo.start(EDGEWEIR_BOOT_ID_FILE=str(boot_id), EDGEWEIR_TIME_SCALE="1")
    await hub.deliver([Input(b"a", "1"), Input(b"b", "2")])
    await hub.until(lambda: len(hub.outputs) == 2)
    echo.send(signal.SIGTERM)
    assert await echo.wait() == 0
    await echo.start(EDGEWEIR_BOOT_ID_FILE=str(boot_id), EDGEWEIR_TIME_SCALE="1")
    await hub.deliver([Input(b"c", "3")])
    await hub.until(lambda: len(hub.once()) == 3)
    assert len(hub.outputs) == 3  # same boot: nothing again
    await echo.kill()
    boot_id.write_text("second\n")
    await echo.start(EDGEWEIR_BOOT_ID_FILE=str(boot_id), EDGEWEIR_TIME_SCALE="1")
    await hub.until(lambda: len(hub.outputs) == 6)
    assert [published.properties["n"] for published in hub.outputs[3:]] == ["1", "2", "3"]
    assert said(hub) == ["a", "b", "c"]


async def test_after_pruning_and_a_reboot_the_module_goes_on_publishing(
    hub: ScriptedHub, echo: EchoProcess, tmp_path: Path
) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("first\n")
    # A scale of 200 lets the 120 s that published messages are kept pass.
    await echo.start(EDGEWEIR_BOOT_ID_FILE=str(boot_id), EDGEWEIR_TIME_SCALE="200")
    await hub.deliver([Input(b"a", "1"), Input(b"b", "2")])
    await hub.until(lambda: len(hub.outputs) == 2)
    await hub.until(lambda: _outbox_rows(echo) == 0)
    hub.acknowledges = False  # so that the next one is still there after the reboot
    await hub.deliver([Input(b"c", "3")])
    await hub.until(lambda: len(hub.once()) == 3)
    await echo.kill()
    hub.acknowledges = True
    boot_id.write_text("second\n")
    published = len(hub.outputs)
    await echo.start(EDGEWEIR_BOOT_ID_FILE=str(boot_id))
    await hub.deliver([Input(b"d", "4")])
    await hub.until(lambda: len(hub.once()) == 4)
    assert [output.properties["n"] for output in hub.outputs[published:]] == ["3", "4"]
    assert said(hub) == ["a", "b", "c", "d"]


def _outbox_rows(echo: EchoProcess) -> int:
    with contextlib.closing(sqlite3.connect(echo.state_dir / "echo.db")) as db:
        return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])


async def test_poison_reaches_the_rejected_output_and_blocks_nothing(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    await hub.deliver([Input(b"poison", "1"), Input(b"bug", "2"), Input(b"good", "3")])
    await hub.until(lambda: len(hub.outputs) == 3)
    outputs = {published.properties["$.on"] for published in hub.outputs}
    assert outputs == {"rejected", "out"}
    reasons = [
        row["reason"]
        for published in hub.outputs
        if published.properties["$.on"] == "rejected"
        for row in json.loads(published.body)["rows"]
    ]
    assert reasons == ["not_json", "internal_error"]
    assert echo.log().count("message failed") == 3
    assert "reason=failed_attempt" in echo.log()  # there is a pause between the attempts
    assert "exception=ZeroDivisionError at echo.py:" in echo.log()
    assert "a bug" not in echo.log()  # an exception's text may quote a payload


async def test_sigterm_with_an_input_in_hand_ends_in_time_with_code_0(hub: ScriptedHub, echo: EchoProcess) -> None:
    hub.desired = {"$version": 1, "hold": True}
    await echo.start()
    session = await hub.attached()
    message = Input(b"held", "1")
    session.publish("input", message.topic(), message.body)
    await hub.until(lambda: "input is held" in echo.log())
    echo.send(signal.SIGTERM)
    assert await echo.wait(10.0) == 0
    assert "input" not in session.completed
    with sqlite3.connect(echo.state_dir / "echo.db") as db:
        assert db.execute("SELECT total FROM echo_count").fetchone() == (0,)
    db.close()


async def test_sigterm_before_any_connection_ends_in_time_with_code_0(
    hub: ScriptedHub, echo: EchoProcess, unused_port: int
) -> None:
    await echo.start(EDGEWEIR_HUB_PORT=str(unused_port))
    await hub.until(lambda: "cannot connect" in echo.log())
    echo.send(signal.SIGTERM)
    assert await echo.wait(10.0) == 0


async def test_refused_settings_are_reported_with_their_path_and_the_old_ones_stay(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.desired = {"$version": 1, "copies": 2}
    await echo.start()
    session = await hub.attached()
    await hub.until(lambda: any("settings" in report for report in hub.reported))
    hub.desired = {"$version": 2, "copies": 11}
    session.publish("desired", "$iothub/twin/PATCH/properties/desired/?$version=2", b"{}")
    await hub.until(lambda: any("refused" in json.dumps(report) for report in hub.reported))
    settings = next(report["settings"] for report in hub.reported if "refused" in json.dumps(report))
    assert isinstance(settings, dict)
    assert (settings["outcome"], settings["version"], settings["path"]) == ("refused", 2, "$.copies")
    await hub.deliver([Input(b"a", "1")])
    await hub.until(lambda: len(hub.outputs) == 2)


async def test_the_last_good_settings_are_used_when_the_twin_does_not_answer(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    hub.desired = {"$version": 1, "copies": 3}
    await echo.start()
    await hub.until(lambda: any("settings" in report for report in hub.reported))
    await echo.kill()
    hub.desired = {}  # edgeHub offline, nothing cached
    await echo.start()
    await hub.deliver([Input(b"a", "1")])
    await hub.until(lambda: len(hub.outputs) == 3)


async def test_a_hole_in_a_peers_numbers_is_reported_as_a_loss(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    session = await hub.attached()
    for number in (1, 4):
        topic = (
            "devices/edge/modules/echo/inputs/in/epoch=e1&output=scores"
            f"&n={number}&%24.cdid=edge&%24.cmid=scorer&%24.mid=id{number}"
        )
        session.publish(f"input {number}", topic, b"x")
        await hub.until(lambda name=f"input {number}": name in session.completed)  # type: ignore[misc]
    await hub.until(lambda: any(report.get("losses") for report in hub.reported))
    losses = next(report["losses"] for report in hub.reported if report.get("losses"))
    assert isinstance(losses, list)
    (loss,) = losses
    assert (loss["module"], loss["output"], loss["first"], loss["last"]) == ("scorer", "scores", 2, 3)
