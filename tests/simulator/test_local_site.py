"""A site with real processes: the runtime, Azurite, and modules as the template names them."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from simulator.delivery import Message
from simulator.devices import Device
from simulator.errors import UserError
from simulator.folders import StateFolder
from simulator.local_site import EDGE_HUB, EdgeInfo, SiteConfig, run_site
from simulator.project import find_root
from simulator.stored import list_blobs
from tests.fixtures import StartSite
from tests.simulator.patience import until


async def test_a_device_reaches_a_site_whose_hub_was_killed(local_site: StartSite) -> None:
    site = await local_site(modules=["scorer"], storage=False, time_scale=50)
    await site.wait_until_connected()
    async with Device(await site.add_device("pump-01")) as device:
        await device.connect()
        await device.send(Message("1", b"{}", ("{}",)))
        before = site.supervisor.pid(EDGE_HUB)
        assert site.supervisor.send_signal(EDGE_HUB, signal.SIGKILL)
        await until(lambda: site.supervisor.pid(EDGE_HUB) not in (None, before))
        await device.send(Message("2", b"{}", ("{}",)))
        assert [message.message_id for message in device.ledger.promised()] == ["1", "2"]
    await site.wait_until_connected()
    # No model: the scorer holds back what it got, and edgeHub keeps it.
    assert (await site.control.stats())["queued_total"] == 2


async def test_twins_keep_what_was_set_when_the_hub_is_killed(local_site: StartSite) -> None:
    site = await local_site(modules=[], storage=False, desired={"scorer": {"bundle": "a"}}, time_scale=50)
    await site.set_desired("scorer", {"bundle": "b", "max_series": 777})
    before = await site.twin("scorer")
    assert before["properties"]["desired"]["max_series"] == 777
    assert site.supervisor.send_signal(EDGE_HUB, signal.SIGKILL)
    await until(lambda: site.supervisor.starts(EDGE_HUB) == 2)
    await site.wait_until_connected()
    after = await site.twin("scorer")
    assert after["properties"]["desired"] == before["properties"]["desired"]


async def test_twins_keep_what_was_set_until_the_manifest_changes(tmp_path: Path) -> None:
    def config(bundle: str) -> SiteConfig:
        root = find_root(Path(__file__).parent)
        desired = {"scorer": {"bundle": bundle}}
        return SiteConfig(root=root, state=tmp_path, environ={}, modules=[], storage=False, desired=desired)

    async with run_site(config("a")) as site:
        await site.set_desired("scorer", {"bundle": "b"})
        assert EdgeInfo.of_folder(StateFolder(tmp_path)) == site.info
        with pytest.raises(UserError, match=r"an edge is running in .* already"):
            async with run_site(config("a")):
                pass
    found = []
    for bundle in ("a", "c", "a"):
        async with run_site(config(bundle)) as site:
            found.append((await site.twin("scorer"))["properties"]["desired"]["bundle"])
    assert found == ["b", "c", "a"]


async def test_waiting_for_modules_bears_a_hub_that_is_away(local_site: StartSite) -> None:
    site = await local_site(modules=["scorer"], storage=False, time_scale=10)
    await site.wait_until_connected()
    pid = site.supervisor.pid(EDGE_HUB)
    assert site.supervisor.send_signal(EDGE_HUB, signal.SIGKILL)
    await until(lambda: site.supervisor.pid(EDGE_HUB) != pid)
    await site.wait_until_connected()
    assert site.supervisor.starts(EDGE_HUB) == 2
    assert await site.connected_modules() == {"scorer"}


async def test_the_uploader_starts_with_a_secret_that_opens_the_storage(local_site: StartSite) -> None:
    site = await local_site(modules=["uploader"])
    assert site.azurite is not None
    secret = site.folder.etc("uploader") / "secrets/storage"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert await asyncio.to_thread(list_blobs, secret.read_text(), site.container) == []
    await site.wait_until_connected()
    assert await site.meter("uploader").read()
    status, _ = await site.call_method("uploader", "status")
    assert status == 200


async def test_a_missing_module_is_told_with_those_that_exist(local_site: StartSite) -> None:
    with pytest.raises(UserError, match="the template has no module nope, only uploader, anomaly_router, scorer"):
        await local_site(modules=["nope"])


async def test_two_sites_run_side_by_side(local_site: StartSite, tmp_path: Path) -> None:
    first = await local_site(state=tmp_path / "1", modules=["scorer"], storage=False)
    second = await local_site(state=tmp_path / "2", modules=["scorer"], storage=False)
    assert first.info.address != second.info.address
    await first.wait_until_connected()
    await second.wait_until_connected()


async def test_a_module_that_cannot_start_is_named_with_its_last_words(local_site: StartSite) -> None:
    site = await local_site(modules=["scorer"], storage=False, environ={"EDGEWEIR_SITE": "x"}, time_scale=1000)
    await site.wait_until_connected()
    site.module_env["scorer"] = {"EDGEWEIR_HTTP_PORT": "nonsense"}
    assert site.supervisor.send_signal("scorer", signal.SIGKILL)
    await until(lambda: site.supervisor.starts("scorer") > 1)
    with pytest.raises(UserError, match=r"scorer did not connect; the last line of .*scorer\.log: "):
        await site.wait_until_connected(secs=2)


def test_no_edge_means_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no edge is running in .*; start one with: edgeweir run"):
        EdgeInfo.of_folder(StateFolder(tmp_path))


async def test_the_expanded_manifest_is_left_to_read(local_site: StartSite) -> None:
    site = await local_site(modules=[], storage=False)
    manifest = json.loads(site.folder.manifest.read_text())
    assert set(manifest["modulesContent"]) >= {"$edgeAgent", "$edgeHub", "scorer"}


async def test_refused_credentials_are_told_in_one_line(local_site: StartSite) -> None:
    site = await local_site(modules=[], storage=False)
    await site.add_device("pump-01")
    stranger = site.info.access("pump-01", "bm90IHRoZSBrZXk=")
    async with Device(stranger) as device:
        with pytest.raises(UserError, match="device pump-01 cannot connect: the hub refused its credentials"):
            await device.connect(attempts=1)


async def test_an_address_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    config = SiteConfig(root=find_root(Path(__file__).parent), state=tmp_path, modules=[], storage=False)
    async with run_site(config) as site:
        address, port = site.info.address, site.info.port
    taken = pytest.raises(UserError, match=f"edgeHub cannot start: {address}:{port} is taken")
    with socket.create_server((address, port)), taken:
        async with run_site(config):
            pass
    async with run_site(config) as again:
        assert again.info.address == address


async def test_what_waits_for_a_module_is_counted_whatever_the_input(local_site: StartSite) -> None:
    site = await local_site(modules=[], storage=False)
    async with Device(await site.add_device("pump-01")) as device:
        await device.connect()
        await device.send(Message("1", b"{}", ("{}",)))
    assert (await site.queued_for("scorer"), await site.queued_for("uploader")) == (1, 0)
