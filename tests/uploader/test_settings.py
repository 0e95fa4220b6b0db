"""Which settings are taken, and what is said about the others."""

from pathlib import Path

import pytest

from edge_module.testing import Bench
from uploader.module import Uploader
from uploader.settings import Settings, effective_destinations, names_by_lane

STORAGE: dict[str, object] = {
    "kind": "azure_blob",
    "name": "storage",
    "container": "edge",
    "connection_string_file": "secrets/storage",
    "lanes": ["anomalies", "insights", "readings"],
}
FOLDER = {"kind": "directory", "name": "local", "path": "kept", "lanes": ["rejected", "readings"]}
SAS = {"account_url": "https://a.blob.local.azurestack.external", "sas_file": "secrets/sas"}


def without(destination: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in destination.items() if key not in keys}


@pytest.mark.parametrize(
    ("destinations", "path"),
    [
        ([STORAGE, {**FOLDER, "name": "storage"}], "$.destinations[1].name"),
        ([{**STORAGE, "lanes": ["readings", "rejected"]}], "$.destinations[0].lanes"),
        ([{**STORAGE, "lanes": []}], "$.destinations[0].lanes"),
        ([{**STORAGE, "lanes": ["elsewhere"]}], "$.destinations[0].lanes[0]"),
        ([{**STORAGE, "name": "local"}], "$.destinations[0].name"),
        ([{**FOLDER, "lanes": ["readings"]}], "$.destinations[0].name"),
        ([{**STORAGE, "container": "Edge"}], "$.destinations[0].container"),
        ([without(STORAGE, "connection_string_file")], "$.destinations[0]"),
        ([{**STORAGE, "connection_string_file": "../../etc/passwd"}], "$.destinations[0].connection_string_file"),
        ([{**STORAGE, "connection_string_file": "/etc/passwd"}], "$.destinations[0].connection_string_file"),
        ([{**STORAGE, **SAS}], "$.destinations[0]"),
        ([{**STORAGE, "account_url": SAS["account_url"]}], "$.destinations[0].account_url"),
        ([{**without(STORAGE, "connection_string_file"), "sas_file": "sas"}], "$.destinations[0].account_url"),
        ([{**STORAGE, "kind": "elsewhere"}], "$.destinations[0].kind"),
    ],
)
def test_settings_that_cannot_stand_are_refused_with_the_place(
    tmp_path: Path, destinations: list[dict[str, object]], path: str
) -> None:
    bench = Bench(Uploader, tmp_path, settings={"destinations": [STORAGE]})
    assert bench.started_with is not None
    assert bench.started_with.outcome == "accepted"
    outcome = bench.set_settings({"destinations": destinations})
    assert (outcome.outcome, outcome.path) == ("refused", path)
    assert outcome.reason


def test_a_signature_beside_a_bare_address_is_taken(tmp_path: Path) -> None:
    bench = Bench(Uploader, tmp_path)
    outcome = bench.set_settings({"destinations": [{**without(STORAGE, "connection_string_file"), **SAS}, FOLDER]})
    assert outcome.outcome == "accepted"


def test_a_signature_in_an_address_is_refused(tmp_path: Path) -> None:
    bench = Bench(Uploader, tmp_path)
    signed = {**without(STORAGE, "connection_string_file"), **SAS, "account_url": "https://a.example/?sig=x"}
    assert bench.set_settings({"destinations": [signed]}).path == "$.destinations[0].account_url"


def test_rejected_goes_to_the_state_folder_unless_a_directory_takes_it(tmp_path: Path) -> None:
    assert names_by_lane(effective_destinations(Settings())) == {"rejected": ("local",)}
    bench = Bench(Uploader, tmp_path, settings={"destinations": [STORAGE, FOLDER]})
    assert isinstance(bench.module, Uploader)
    assert [line["name"] for line in bench.module.status()["destinations"]] == ["storage", "local"]  # type: ignore[attr-defined]
