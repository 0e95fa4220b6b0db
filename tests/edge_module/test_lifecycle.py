"""A module that cannot start says why in one line; a running one logs, answers and stops as the runtime expects."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from edge_module.environment import BadEnvironment, read_environment
from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import Input, ScriptedHub
from tests.waiting import until

EDGE = {
    "IOTEDGE_IOTHUBHOSTNAME": "hub.example",
    "IOTEDGE_GATEWAYHOSTNAME": "gateway",
    "IOTEDGE_DEVICEID": "edge",
    "IOTEDGE_MODULEID": "echo",
    "IOTEDGE_MODULEGENERATIONID": "1",
    "IOTEDGE_WORKLOADURI": "unix:///nowhere/workload.sock",
    "IOTEDGE_APIVERSION": "2022-08-03",
}


async def ends_with_one_line(echo: EchoProcess, **extra: str) -> str:
    await echo.start(**extra)
    assert await echo.wait() == 2
    (line,) = echo.log().splitlines()
    return line


async def test_a_missing_variable_is_named_in_one_line(echo: EchoProcess) -> None:
    line = await ends_with_one_line(echo, EdgeHubConnectionString="")
    assert line.startswith("echo: missing environment variable IOTEDGE_IOTHUBHOSTNAME, ")


async def test_a_taken_port_is_named_in_one_line(echo: EchoProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await ends_with_one_line(echo, EDGEWEIR_HTTP_PORT=str(port))
    assert f"127.0.0.1:{port}" in line
    assert "EDGEWEIR_HTTP_PORT" in line


async def test_a_state_folder_that_cannot_be_written_is_named_in_one_line(echo: EchoProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = await ends_with_one_line(echo, EDGEWEIR_STATE_DIR=str(tmp_path / "file" / "state"))
    assert "EDGEWEIR_STATE_DIR" in line


async def test_a_second_process_on_the_same_state_folder_is_refused(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    await hub.attached()
    second = EchoProcess(
        echo.state_dir, hub_port=hub.port, ca_file=Path(echo.environment["EdgeModuleCACertificateFile"])
    )
    second.log_file = echo.state_dir.parent / "second.log"
    line = await ends_with_one_line(second)
    assert "another process of this module" in line


async def test_a_module_that_waits_for_its_disk_says_so_before_it_can_reach_the_hub(
    echo: EchoProcess, unused_port: int
) -> None:
    (echo.state_dir / "echo.db").mkdir()
    await echo.start(EDGEWEIR_HTTP_PORT=str(unused_port))
    await until(lambda: "cannot open the store" in echo.log())
    vitals = json.loads(echo.get("/healthz", port=unused_port))
    assert (vitals["is_alive"], list(vitals["health"])) == (True, ["disk_error"])


async def test_a_process_whose_event_loop_stands_still_ends_so_that_it_is_started_again(
    hub: ScriptedHub, echo: EchoProcess
) -> None:
    await echo.start(ECHO_FREEZES="yes", EDGEWEIR_TIME_SCALE="60")
    assert await echo.wait(30.0) == 1
    assert "the event loop stands still" in echo.log()
    assert re.search(r'at="?echo.py:\d+:background', echo.log()), "it does not say where"


async def test_a_process_whose_log_nobody_reads_ends_all_the_same(hub: ScriptedHub, echo: EchoProcess) -> None:
    """The event loop stands still in a write to its log, and so would whoever wants to log that."""
    log = echo.log_file
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await echo.start(ECHO_CHATTERS="yes", EDGEWEIR_TIME_SCALE="60")
        assert await echo.wait(30.0) == 1
    finally:
        os.close(reader)


async def test_a_module_that_takes_long_to_open_is_waited_for(hub: ScriptedHub, echo: EchoProcess) -> None:
    """Even longer than an event loop may stand still: it does not."""
    await echo.start(EDGEWEIR_TIME_SCALE="60")
    await until(lambda: "settings accepted" in echo.log())
    echo.send(signal.SIGTERM)
    assert await echo.wait() == 0
    await echo.start(EDGEWEIR_TIME_SCALE="60", ECHO_OPENING_SECS="7")
    await hub.deliver([Input(b"hello", "1")])
    await hub.until(lambda: len(hub.outputs) == 1)
    assert "stands still" not in echo.log()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"IOTEDGE_DEVICEID": ""}, "IOTEDGE_DEVICEID"),
        ({"IOTEDGE_WORKLOADURI": "ftp://x"}, "IOTEDGE_WORKLOADURI"),
        ({"EDGEWEIR_HTTP_PORT": "x"}, "EDGEWEIR_HTTP_PORT is 'x'; expected a number from 0 to 65535"),
        ({"EDGEWEIR_KILL_AT": ":3"}, "EDGEWEIR_KILL_AT"),
    ],
)
def test_a_bad_environment_is_refused_with_the_variables_name(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadEnvironment, match=re.escape(complaint)):
        read_environment(EDGE | changes)


def test_the_environment_of_the_runtime_is_read() -> None:
    environment = read_environment(EDGE)
    assert environment.site == "edge"
    assert (environment.port, environment.http_port) == (8883, 9600)
    assert environment.workload is not None


async def test_logs_health_and_metrics_are_those_that_operators_know(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    await hub.deliver([Input(b"hello", "1")])
    await hub.until(lambda: len(hub.outputs) == 1)
    health = json.loads(echo.get("/healthz"))
    assert (health["is_alive"], health["health"], health["version"]) == (True, "ok", "0.1.0")
    metrics = echo.get("/metrics")
    assert "\nedgeweir_echo_echoed_messages_total 1.0\n" in metrics
    assert '\nedgeweir_echo_received_messages_total{input="in"} 1.0\n' in metrics
    echo.send(signal.SIGTERM)
    assert await echo.wait(10) == 0
    assert hub.disconnects == 1
    line = re.compile(r"^<[2-7]> \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+00:00 \[(FTL|ERR|WRN|INF|DBG)\] \S.*$")
    assert all(line.match(text) for text in echo.log().splitlines())
    assert "hello" not in echo.log()


async def test_a_module_whose_background_is_busy_leaves_with_code_0(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start(ECHO_CHORES="1")
    await hub.attached()
    await until(lambda: "settings accepted" in echo.log())
    echo.send(signal.SIGTERM)
    assert await echo.wait() == 0, echo.log()


async def test_a_module_that_hangs_is_ended_in_time_with_code_0(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    session = await hub.attached()
    message = Input(b"hang", "1")
    session.publish("input", message.topic(), message.body)
    await hub.until(lambda: "hanging" in echo.log())
    echo.send(signal.SIGTERM)
    assert await echo.wait(10) == 0


async def test_a_workload_api_that_is_not_there_is_waited_for(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start(**EDGE)
    await hub.until(lambda: echo.log().count("reason=workload_unreachable") >= 2)
    assert "workload_unreachable" in json.loads(echo.get("/healthz"))["health"]
