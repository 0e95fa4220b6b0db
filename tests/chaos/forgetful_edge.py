"""A whole edge on the forgetful disk: what its processes need in their environment, and what they have lost at a cut.

Modules' disks keep nothing but what was synced, and what a seed lets through. edgeHub runs with `synchronous=NORMAL`,
as RocksDB does with its default write options, so its disk is written back every second, in order; what it had
acknowledged since then is gone after a cut. `unsynced_since` says when that time began, exactly.
"""

import uuid
from pathlib import Path
from typing import Final

from simulator.local_site import EDGE_HUB
from tests.chaos.arena import MODULES
from tests.chaos.forgetful import DiskOptions, environment, written_back

WRITE_BACK_SECS: Final = 1.0
# A disk that leaks much hides what was never synced, one that leaks nothing is never torn: the seed decides.
_LEAKS: Final = (0.0, 0.003, 0.05)
# edgeHub writes far more often, and what leaks of an unsynced log does not change what the log is worth.
_HUB_LEAK: Final = 0.002


def options_of(part: str, seed: int) -> DiskOptions:
    if part == EDGE_HUB:
        return DiskOptions(seed, _HUB_LEAK, WRITE_BACK_SECS)
    return DiskOptions(seed, _LEAKS[seed % len(_LEAKS)])


def edge_environment(state: Path, seed: int) -> dict[str, dict[str, str]]:
    """For `SiteConfig.environment`. The edge has a boot id of its own, in a file of the state folder."""
    boot_with_new_id(state)
    found = {part: environment(options_of(part, seed)) for part in (*MODULES, EDGE_HUB)}
    for module in MODULES:
        found[module]["EDGEWEIR_BOOT_ID_FILE"] = str(_boot_id_file(state))
    return found


def boot_with_new_id(state: Path) -> None:
    """As the kernel does at each start. Call it while no module runs."""
    state.mkdir(parents=True, exist_ok=True)
    part = _boot_id_file(state).with_suffix(".part")
    part.write_text(f"{uuid.uuid4()}\n")
    part.replace(_boot_id_file(state))


def unsynced_since(state: Path) -> float | None:
    """What edgeHub committed before this moment (`time.monotonic`) survives a power cut now. None: nothing yet does.

    Ask it when edgeHub stands still.
    """
    return written_back(state / "runtime.db")


def _boot_id_file(state: Path) -> Path:
    return state / "boot_id"
