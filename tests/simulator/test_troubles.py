import signal

from simulator.delivery import Message
from simulator.devices import Device
from simulator.oracle import Expected
from simulator.scenario import Scenario
from simulator.troubles import Troubles
from simulator.watch import Watch
from tests.fixtures import StartSite
from tests.simulator.patience import until


async def test_a_module_is_killed_once_and_at_work_when_there_is_any(local_site: StartSite) -> None:
    site = await local_site(modules=["scorer"], storage=False, time_scale=50)
    await site.wait_until_connected()
    watch = Watch(site, Scenario("none", ()), Expected(), window_rows=1, began=0.0)
    told: list[str] = []
    idle = Troubles(2.0, told.append)
    await idle.kill(site, watch, "scorer")
    assert (idle.kills, told) == (1, ["scorer is killed (SIGKILL)"])
    await until(lambda: site.supervisor.starts("scorer") == 2)
    assert site.supervisor.exit_code("scorer") == -signal.SIGKILL
    async with Device(await site.add_device("pump-01")) as device:
        await device.connect()
        await device.send(Message("1", b"{}", ("{}",)))  # there is no model, so the scorer has it in hand for ever
    busy = Troubles(2.0, told.append)
    await busy.kill(site, watch, "scorer")
    assert (busy.kills, told[1:]) == (1, ["scorer is killed (SIGKILL) at work"])
