import gzip
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import ContainerClient

from contract.batch import BlobName, format_blob_name
from simulator.azurite import Account, run_azurite
from simulator.azurite_setup import install, is_installed
from simulator.errors import UserError
from simulator.project import find_root
from simulator.stored import API_VERSION, Storage, list_blobs, read_container

ROOT = find_root(Path(__file__).parent)
NAME = format_blob_name(BlobName("readings", "plant-1", "date=2026-11-23/hour=18", "ab", 1, "0" * 16))


def client(connection_string: str) -> ContainerClient:
    return ContainerClient.from_connection_string(connection_string, "rows", api_version=API_VERSION)


async def test_blobs_survive_a_restart_and_can_be_read_back(tmp_path: Path) -> None:
    async with run_azurite(ROOT, tmp_path) as azurite:
        assert list_blobs(azurite.connection_string, "rows") == []
        with client(azurite.connection_string) as container:
            container.create_container()
            container.upload_blob(NAME, gzip.compress(b'{"i":1.10}\n'), overwrite=False)
            with pytest.raises(ResourceExistsError):
                container.upload_blob(NAME, b"again", overwrite=False)
    async with run_azurite(ROOT, tmp_path) as again:
        assert again.account == azurite.account
        storage = Storage()
        read_container(again.connection_string, "rows", storage)
    assert storage.blobs == 1
    assert storage.lane("readings") == [{"i": "1.10"}]
    assert storage.lane("anomalies") == []


async def test_another_account_has_no_access(tmp_path: Path) -> None:
    async with run_azurite(ROOT, tmp_path) as azurite:
        stranger = Account(azurite.account.name, Account.random().key)
        refused = pytest.raises(HttpResponseError, match="failed to authenticate")
        with client(stranger.connection_string(azurite.port)) as container, refused:
            container.create_container()


async def test_a_start_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "__azurite_db_blob__.json").mkdir()
    with pytest.raises(UserError, match="Azurite did not start") as caught:
        async with run_azurite(ROOT, tmp_path):
            pass
    assert "\n" not in str(caught.value)


def test_installing_again_does_nothing() -> None:
    assert is_installed(ROOT)
    assert install(ROOT) is False


def test_an_installation_of_another_lock_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "simulator/azurite").mkdir(parents=True)
    (tmp_path / "simulator/azurite/package-lock.json").write_text("{}")
    assert not is_installed(tmp_path)


def test_the_project_is_found_from_inside_and_from_elsewhere(tmp_path: Path) -> None:
    assert find_root(ROOT / "docs") == ROOT
    assert find_root(tmp_path) == ROOT
