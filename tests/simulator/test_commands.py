"""The commands as a user types them: what they say when something is wrong, and a whole session when nothing is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeweir.__main__ import build_app
from simulator.folders import StateFolder
from tests.simulator.models import write_spread_bundle

ROOT = Path(__file__).parents[2]


def edgeweir(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


def one_line(*arguments: object) -> str:
    """What a command says about a user's mistake: exit code 2 and one line, never a traceback."""
    code, said = edgeweir(*arguments)
    assert code == 2, said
    (line,) = said.splitlines()
    assert line.startswith("edgeweir ")
    return line


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "no_time.csv"
    path.write_text("a,b\n1,2\n")
    return path


def test_a_missing_variable_is_named_with_its_place(tmp_path: Path) -> None:
    template = tmp_path / "deployment.template.json"
    template.write_text('{"modulesContent": {"x": {"a":\n "${NOT_THERE}"}}}')
    said = one_line("run", "--state", tmp_path / "s", "--template", template)
    assert said == (
        "edgeweir run: deployment.template.json:2: variable NOT_THERE is not set; put it into .env or the environment"
    )


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.json: No such file" in one_line("run", "--state", tmp_path / "s", "--template", tmp_path / "none.json")


def test_an_unreadable_bundle_is_named_with_what_to_do(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert "there is no manifest.json; give a folder or zip" in one_line(
        "run", "--state", tmp_path / "s", "--bundle", bundle
    )
    (bundle / "manifest.json").write_text("{}")
    assert "bundle_manifest" in one_line("run", "--state", tmp_path / "s", "--bundle", bundle)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 not a zip")
    assert "bundle_unreadable" in one_line("run", "--state", tmp_path / "s", "--bundle", broken)
    assert "No such file" in one_line("run", "--state", tmp_path / "s", "--bundle", tmp_path / "none")


def test_a_second_edge_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with StateFolder(tmp_path).locked():
        said = one_line("run", "--state", tmp_path)
    assert f"an edge is running in {tmp_path} already (process {os.getpid()}); stop it" in said


def test_a_folder_with_other_things_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert "holds other things; give an empty or new folder" in one_line("demo", "--state", tmp_path)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("command", [["simulate", "--csv"], ["demo", "--replay"]])
def test_a_csv_without_a_timestamp_is_named(command: list[str], csv: Path) -> None:
    assert one_line(*command, csv).endswith("no timestamp column (found: a, b); name it timestamp or ts or time")


@pytest.mark.parametrize(
    "command", [["simulate"], ["twin", "get", "scorer"], ["twin", "set", "scorer", "{}"], ["method", "scorer", "x"]]
)
def test_without_a_running_edge_the_line_says_how_to_start_one(command: list[str], tmp_path: Path) -> None:
    said = one_line(*command, "--state", tmp_path / "none")
    assert said.endswith("start one with: edgeweir run")


def test_what_is_no_json_is_shown_where_it_stops(tmp_path: Path) -> None:
    assert "the patch is not JSON: " in one_line("twin", "set", "scorer", "{a}", "--state", tmp_path)
    assert "the patch is no JSON object" in one_line("twin", "set", "scorer", "[]", "--state", tmp_path)
    assert "the payload is not JSON: " in one_line("method", "scorer", "x", "{", "--state", tmp_path)


def test_a_connection_string_that_names_no_device_is_refused(tmp_path: Path) -> None:
    assert "names no DeviceId" in one_line("simulate", "--connection-string", "HostName=x")
    assert "connection string is not usable" in one_line("simulate", "--connection-string", "HostName=x;DeviceId=d")
    whole = "HostName=x;DeviceId=d;SharedAccessKey=aGFsbG8="
    assert "cannot be read as a PEM certificate" in one_line(
        "simulate", "--connection-string", whole, "--ca", tmp_path / "none.pem"
    )


def test_a_file_to_write_and_a_file_to_replay_do_not_go_together(tmp_path: Path, csv: Path) -> None:
    assert "does not go with --csv" in one_line("simulate", "--csv", csv, "--to-file", tmp_path / "out.jsonl")


def test_a_hub_that_cannot_be_reached_is_named_once() -> None:
    said = one_line(
        "simulate", "--rows", 1, "--connection-string", "HostName=127.0.0.9;DeviceId=d;SharedAccessKey=aGFsbG8="
    )
    assert "device d cannot connect: no connection to 127.0.0.9:8883; check the host name and the network" in said


def test_readings_with_labels_can_be_written_for_the_trainer(tmp_path: Path) -> None:
    path = tmp_path / "pumps.jsonl"
    assert edgeweir("simulate", "--devices", 2, "--rows", 400, "--to-file", path)[0] == 0
    readings = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(readings) == 800
    assert {reading["machine"] for reading in readings} == {"pump-01", "pump-02"}
    assert len({reading["label"] for reading in readings}) > 2
    assert "No such file" in one_line("simulate", "--to-file", tmp_path / "none/x.jsonl")


@contextmanager
def edge_run(*arguments: object) -> Iterator["tuple[subprocess.Popen[str], list[str]]"]:
    """`edgeweir run` as a process, up, and what it had said by then."""
    command = [sys.executable, "-m", "edgeweir", "run", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("up; Ctrl-C"):
                break
        else:
            pytest.fail("".join(said))
        try:
            yield process, said
        finally:
            process.kill()


@pytest.fixture
def running_edge(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    state = tmp_path / "edge"
    bundle = write_spread_bundle(tmp_path / "bundle")
    with edge_run("--state", state, "--bundle", bundle, "--scale", "20") as (process, _):
        yield state, process


def call(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgeweir", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_whole_session(running_edge: tuple[Path, "subprocess.Popen[str]"]) -> None:
    state, process = running_edge
    option = ("--state", str(state))
    assert json.loads(call("twin", "get", "uploader", *option))["desired"]["destinations"][0]["name"] == "storage"
    changed = json.loads(call("twin", "set", "uploader", '{"batch_max_age_secs": 1}', *option))
    assert changed["desired"]["batch_max_age_secs"] == 1
    refused = edgeweir("twin", "set", "scorer", '{"max_series": -1}', *option)
    assert refused == (1, "refused by scorer: $.max_series: Expected `int` >= 1\n")
    unknown = edgeweir("twin", "set", "scorer", '{"max_series": 500, "max_serie": 5}', *option)
    assert unknown == (0, "accepted by scorer; it does not know $.max_serie\n")
    gone = edgeweir("twin", "set", "scorer", '{"bundle": "models/none"}', *option)
    assert gone[0] == 1
    assert "models/none does not exist; put a bundle there" in gone[1]
    assert edgeweir("twin", "set", "scorer", '{"bundle": null, "max_serie": null}', *option)[0] == 0
    assert json.loads(call("method", "scorer", "model_info", *option))["status"] == 200
    call("simulate", "--devices", "2", "--rows", "40", "--speed", "0", "--repeated", "0.2", *option)
    assert json.loads(call("method", "uploader", "flush", *option))["status"] == 200
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 5
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert "Traceback" not in output


def test_an_edge_that_comes_up_says_what_a_module_is_not_content_with(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("edgeweir_policy: 1\nname: x\n")
    arguments = ("--state", tmp_path / "edge", "--policy", policy, "--module", "anomaly_router", "--quiet")
    with edge_run(*arguments) as (process, said):
        process.send_signal(signal.SIGINT)
        process.wait(60)
    complaints = [line for line in said if line.startswith("anomaly_router ") and "no_policy" in line]
    assert len(complaints) == 1, said
    assert "version must be there" in complaints[0]
