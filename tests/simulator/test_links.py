"""The fault proxies of a running site: everybody's traffic goes through the link of its name, TLS names and all."""

from pathlib import Path

from simulator.delivery import Message
from simulator.devices import Device
from simulator.fault_proxy import Down
from simulator.folders import StateFolder
from simulator.local_site import EdgeInfo, SiteConfig, run_site
from simulator.project import find_root
from tests.fixtures import StartSite
from tests.waiting import until


async def test_devices_modules_and_uploads_each_go_through_their_own_link(local_site: StartSite) -> None:
    site = await local_site(modules=["uploader", "scorer"], fault_proxies=True, time_scale=20)
    assert set(site.links) == {"storage", "devices", "uploader", "scorer"}
    await site.wait_until_connected()
    async with Device(await site.add_device("pump-01")) as device:
        await device.connect()
        await device.send(Message("1", b"{}", ("{}",)))
    assert site.links["devices"].accepted == 1
    assert site.links["scorer"].open_connections == site.links["uploader"].open_connections == 1
    site.links["scorer"].add(Down())
    await until(lambda: site.links["scorer"].open_connections == 0)
    assert site.links["uploader"].open_connections == 1
    site.links["scorer"].reset()
    await site.wait_until_connected()


async def test_devices_find_their_link_at_the_same_address_after_a_restart(tmp_path: Path) -> None:
    root = find_root(Path(__file__).parent)
    found = []
    for _ in range(2):
        async with run_site(
            SiteConfig(root=root, state=tmp_path, modules=[], storage=False, fault_proxies=True)
        ) as site:
            found.append(site.links["devices"].address)
            assert EdgeInfo.of_folder(StateFolder(tmp_path)).devices_host == found[0][0] != site.info.address
    assert found[0] == found[1]
