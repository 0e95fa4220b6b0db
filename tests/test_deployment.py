"""The deployment template: every message has a way, none has a leak, and each planted mistake is found."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulator.topology import MIN_TIME_TO_LIVE_SECS, find_faults

ROOT = Path(__file__).parent.parent
TEMPLATE: dict[str, Any] = json.loads((ROOT / "deployment.template.json").read_text())
MODULES = ("scorer", "anomaly_router", "uploader")


@pytest.fixture
def manifest() -> dict[str, Any]:
    return copy.deepcopy(TEMPLATE)


def hub(manifest: dict[str, Any]) -> dict[str, Any]:
    desired: dict[str, Any] = manifest["modulesContent"]["$edgeHub"]["properties.desired"]
    return desired


def codes(manifest: dict[str, Any]) -> set[str]:
    return {fault.code for fault in find_faults(manifest)}


def test_no_dead_end_no_cycle_every_input_fed_no_leak_and_nothing_expires_early(manifest: dict[str, Any]) -> None:
    assert find_faults(manifest) == []


@pytest.mark.parametrize("name", sorted(hub(TEMPLATE)["routes"]))
def test_taking_any_route_away_is_found(manifest: dict[str, Any], name: str) -> None:
    del hub(manifest)["routes"][name]
    assert "dead_end" in codes(manifest)


def test_a_route_without_its_condition_takes_module_messages_too_and_makes_a_cycle(manifest: dict[str, Any]) -> None:
    route = hub(manifest)["routes"]["devicesToScorer"]
    route["route"] = route["route"].replace("WHERE NOT IS_DEFINED($connectionModuleId) ", "")
    assert "cycle" in codes(manifest)


@pytest.mark.parametrize(
    "source",
    [
        "/*",
        "/messages/*",
        "/messages/modules/*",
        "/messages/modules/scorer/outputs/scores",
        "/messages/modules/anomaly_router/*",
        "/messages/modules/anomaly_router/outputs/rejected",
        "/MESSAGES/modules/anomaly_router/outputs/REJECTED",
    ],
)
def test_a_way_to_the_cloud_round_the_policy_is_a_leak(manifest: dict[str, Any], source: str) -> None:
    hub(manifest)["routes"]["toCloud"] = f"FROM {source} INTO $upstream"
    assert codes(manifest) == {"upstream_leak"}


def test_leaf_devices_straight_to_the_cloud_are_a_leak(manifest: dict[str, Any]) -> None:
    hub(manifest)["routes"]["toCloud"] = "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO $upstream"
    assert codes(manifest) == {"upstream_leak"}


def test_anomalies_may_go_to_the_cloud(manifest: dict[str, Any]) -> None:
    hub(manifest)["routes"]["toCloud"] = "FROM /messages/modules/anomaly_router/outputs/anomalies INTO $upstream"
    assert find_faults(manifest) == []


def test_a_misspelt_input_leaves_one_unfed_and_one_unknown(manifest: dict[str, Any]) -> None:
    route = hub(manifest)["routes"]["routerInsightsToUploader"]
    route["route"] = route["route"].replace("inputs/insights", "inputs/insight")
    assert codes(manifest) == {"no_such_input", "unfed"}


def test_a_route_into_a_module_that_is_not_deployed_is_found(manifest: dict[str, Any]) -> None:
    hub(manifest)["routes"]["extra"] = (
        'FROM /messages/modules/scorer/outputs/scores INTO BrokeredEndpoint("/modules/historian/inputs/in")'
    )
    assert codes(manifest) == {"no_such_input"}


def test_a_route_that_cannot_be_read_is_found(manifest: dict[str, Any]) -> None:
    hub(manifest)["routes"]["broken"] = "FROM /messages/* TO $upstream"
    assert codes(manifest) == {"unreadable_route"}


@pytest.mark.parametrize("seconds", [1, 7200, MIN_TIME_TO_LIVE_SECS - 1])
def test_a_route_that_expires_sooner_than_thirty_days_is_found(manifest: dict[str, Any], seconds: int) -> None:
    hub(manifest)["routes"]["scorerScoresToRouter"]["timeToLiveSecs"] = seconds
    assert codes(manifest) == {"expires_early"}


def test_a_route_without_a_time_to_live_takes_the_global_one(manifest: dict[str, Any]) -> None:
    del hub(manifest)["routes"]["scorerScoresToRouter"]["timeToLiveSecs"]
    assert find_faults(manifest) == []
    hub(manifest)["storeAndForwardConfiguration"]["timeToLiveSecs"] = 7200
    assert codes(manifest) == {"expires_early"}


def test_source_modules_are_named_one_by_one() -> None:
    for name, route in hub(TEMPLATE)["routes"].items():
        if name != "devicesToScorer":
            assert "FROM /messages/modules/" in route["route"]
            assert "*" not in route["route"]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_is_limited_and_writes_to_one_folder_only(module: str) -> None:
    agent = TEMPLATE["modulesContent"]["$edgeAgent"]["properties.desired"]
    spec = agent["modules"][module]
    host = spec["settings"]["createOptions"]["HostConfig"]
    assert spec["restartPolicy"] == "always"
    assert spec["settings"]["createOptions"]["User"] == "1000:1000"
    assert host["ReadonlyRootfs"] is True
    assert host["Memory"] > 0
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}}
    writable = [bind for bind in host["Binds"] if not bind.endswith(":ro")]
    assert writable == [f"/srv/edgeweir/{module}:/var/lib/edgeweir"]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_json_names_files_that_are_there(module: str) -> None:
    folder = ROOT / "modules" / module
    image = json.loads((folder / "module.json").read_text())["image"]
    assert (folder / image["contextPath"]).resolve() == ROOT
    for dockerfile in image["tag"]["platforms"].values():
        text = (folder / dockerfile).read_text()
        assert "RUN --mount" not in text
        assert "<<" not in text
        for line in text.splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                assert (ROOT / line.split()[1]).exists(), line


def test_the_runtime_is_not_one_whose_edgehub_loses_the_connect_packet() -> None:
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    major, minor, patch = (int(part) for part in example["EDGE_RUNTIME_VERSION"].split("."))
    assert (major, minor) == (1, 6)
    assert patch >= 8


def test_the_template_names_every_variable_it_needs_in_the_example_environment() -> None:
    needed = set(re.findall(r"\$\{([A-Z_]+)\}", (ROOT / "deployment.template.json").read_text()))
    given = {line.split("=", 1)[0] for line in (ROOT / ".env.example").read_text().splitlines()}
    assert needed <= given
