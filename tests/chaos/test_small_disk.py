"""A small disk fills to the page and frees again; a store on it calls it full, whichever file finds out first."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_module.clock import SystemClock
from edge_module.faults import disk_reason
from edge_module.store import Store
from tests.chaos.small_disk import CannotMount, SmallDisk, mounted, sweep
from tests.e2e.pipeline import ROOT

_SIZE_BYTES = 4 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with contextlib.ExitStack() as stack:
        try:
            mount = stack.enter_context(mounted(tmp_path, _SIZE_BYTES))
        except CannotMount as reason:
            pytest.skip(str(reason))  # in `make test` only: it asks for no privileges
        yield mount


def open_store(disk: SmallDisk) -> Store:
    return Store(disk.folder / "s.db", clock=SystemClock(), boot_id="b")


def write_half_a_mebibyte(disk: SmallDisk) -> None:
    with contextlib.closing(open_store(disk)) as store:
        store.db.execute("CREATE TABLE t (x)")
        for _ in range(128):
            store.db.execute("INSERT INTO t VALUES (zeroblob(4096))")


@pytest.mark.parametrize("leave", [0, 4096, 16384, 32768, 65536])
def test_a_full_disk_is_called_full_and_not_broken_wherever_it_fails_first(disk: SmallDisk, leave: int) -> None:
    open_store(disk).close()
    disk.fill(leave)
    with pytest.raises(sqlite3.Error) as caught:
        write_half_a_mebibyte(disk)
    assert disk_reason(caught.value) == "disk_full"
    disk.free()
    open_store(disk).close()


_DIES = """
import os, pathlib, sys
from tests.chaos.small_disk import mounted
disk = mounted(pathlib.Path(sys.argv[1]), 4096)
disk.__enter__()
os._exit(0)
"""


def test_what_a_dead_harness_left_is_unmounted_and_what_a_live_one_uses_is_not(disk: SmallDisk) -> None:
    left = disk.folder / "left"
    left.mkdir()
    subprocess.run([sys.executable, "-c", _DIES, left], cwd=ROOT, check=True)
    assert os.path.ismount(left)
    sweep()
    assert not os.path.ismount(left)
    assert os.path.ismount(disk.folder)
