"""What the local edge runtime may lose when the power goes, and what it may not."""

from contextlib import closing
from pathlib import Path

from simulator.runtime.identities import Registry
from simulator.runtime.store import Store
from simulator.runtime.twin_store import TwinStore
from simulator.runtime.twins import EMPTY
from tests.chaos.cut_runs import disk_with
from tests.chaos.forgetful import power_supply
from tests.chaos.forgetful_disk import Disk


def test_what_iot_hub_keeps_survives_a_power_cut_and_what_edge_hub_acknowledged_may_not(tmp_path: Path) -> None:
    disk = Disk()
    with power_supply(disk), closing(Store(tmp_path / "runtime.db")) as store:
        key = Registry(store).ensure("device").primary_key
        TwinStore(store).put("edge/scorer", EMPTY)
        store.sync()
        store.sync()  # nothing was committed since
        store.set_meta("acknowledged", "in the last second")
        store.flush()
        image = disk.image()
    (tmp_path / "after").mkdir()
    with power_supply(disk_with(image, tmp_path / "after")), closing(Store(tmp_path / "after/runtime.db")) as store:
        found = Registry(store).get("device")
        assert found is not None
        assert found.primary_key == key
        assert TwinStore(store).get("edge/scorer") == EMPTY
        assert store.get_meta("acknowledged") is None
