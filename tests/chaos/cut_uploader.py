"""Power cuts under the uploader with a folder as destination, at every point at which they differ.

As `tests.chaos.cut_runs`, but what counts is what is stored: every accepted row once, in whole files whose numbers have
no gap. What a folder itself may lose at a power cut is another matter (`tests.chaos.crash_states`): here a file keeps
the name it has.
"""

import asyncio
import gzip
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contract.batch import parse_blob_name
from contract.lanes import Lane
from contract.timestamps import format_timestamp
from edge_module.testing import Bench, ManualClock
from tests.chaos.cut_runs import Broken, Image, disk_with
from tests.chaos.forgetful import power_supply
from tests.chaos.forgetful_disk import Disk
from tests.uploader.azurite import rows_in_folder
from tests.uploader.lane_messages import START_MICROS, anomalies, readings, row
from tests.uploader.running import is_drained, until, working
from uploader.module import Uploader

_ROWS: Final = 4
_STORED: Final = "stored"
_LANES: Final[tuple[Lane, ...]] = ("readings", "anomalies")
_SETTINGS: Final[Mapping[str, object]] = {
    "destinations": [{"kind": "directory", "name": "folder", "path": _STORED, "lanes": list(_LANES)}],
    "batch_max_rows": 2 * _ROWS,
    "batch_max_age_secs": 3.0,
    "retry_max_secs": 1,
}
_HURRY: Final = 100.0
_LOOK_SECS: Final = 0.005
_INTERVAL_MICROS: Final = 360_000_000


class HurriedClock(ManualClock):
    """The module's own waits are short."""

    def scaled(self, secs: float) -> float:
        return secs / _HURRY


@dataclass(frozen=True)
class Delivery:
    """One message of the router. Its rows are numbered from `first` on, and every third message crosses an hour."""

    lane: Lane
    message_id: str
    first: int

    @property
    def body(self) -> bytes:
        rows = (row(i, t=format_timestamp(START_MICROS + i * _INTERVAL_MICROS)) for i in _numbers(self))
        return anomalies(rows) if self.lane == "anomalies" else readings(rows)


@dataclass(frozen=True)
class UploaderCut:
    """`done`: how many deliveries were acknowledged. `stored`: the files of the destination."""

    label: str
    image: Image
    stored: Mapping[str, bytes]
    done: int


def deliveries(count: int = 6) -> list[Delivery]:
    return [Delivery(_LANES[i % 3 == 2], f"u-{i}", i * _ROWS) for i in range(count)]


async def record(
    given: Sequence[Delivery],
    folder: Path,
    *,
    seed: int | None = None,
    leak: float = 0.1,
    synchronous: str | None = None,
) -> list[UploaderCut]:
    """Accept and store everything once, undisturbed. Raises Broken when even that goes wrong."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    disk = Disk(seed=seed, leak=leak)
    rng = None if seed is None else random.Random(seed)
    cuts: list[UploaderCut] = []
    done = 0

    def take(label: str) -> None:
        cuts.append(UploaderCut(label, disk.image(rng), _files(folder / _STORED), done))

    disk.on_point = take
    with power_supply(disk, synchronous=synchronous):
        bench = _bench(folder, "boot-1")
        async with working(bench, look_secs=_LOOK_SECS):
            for number, delivery in enumerate(given):
                _feed(bench, delivery)
                done = number + 1
                take("acknowledged")
                await asyncio.sleep(0)
            await until(lambda: is_drained(bench))
        bench.close()
    take("closed")
    judge(given, folder)
    return cuts


async def live_through(
    given: Sequence[Delivery], cut: UploaderCut, folder: Path, rng: random.Random, *, synchronous: str | None = None
) -> None:
    """Start again after this cut and go on to the end. Raises Broken."""
    await asyncio.to_thread(_put_files, folder / _STORED, cut.stored)
    with power_supply(disk_with(cut.image, folder), synchronous=synchronous):
        bench = _bench(folder, "boot-2")
        try:
            async with working(bench, look_secs=_LOOK_SECS):
                for delivery in given[max(0, cut.done - rng.randint(0, 1)) :]:
                    _feed(bench, delivery)
                await until(lambda: is_drained(bench))
        finally:
            bench.close()
    judge(given, folder)


def judge(given: Sequence[Delivery], folder: Path) -> None:
    """Every row once, in order; per lane and spool the numbers of files from 1 without a gap. Raises Broken."""
    root = folder / _STORED
    for lane in _LANES:
        found = Counter(int(str(line["i"])) for line in rows_in_folder(root, lane))
        wanted = {i for each in given if each.lane == lane for i in _numbers(each)}
        if missing := wanted - found.keys():
            raise Broken(f"missing in {lane}: rows {sorted(missing)[:5]}, {len(missing)} in all")
        if twice := [i for i, count in found.items() if count > 1]:
            raise Broken(f"duplicated in {lane}: rows {twice[:5]}, {len(twice)} in all")
        if extra := found.keys() - wanted:
            raise Broken(f"never sent in {lane}: rows {sorted(extra)[:5]}")
        _judge_order(root, lane)
    _judge_numbers(root)


def _judge_order(root: Path, lane: Lane) -> None:
    """A row that came before another, in the same hour folder or an earlier one, is stored before it."""
    files = [(parse_blob_name(file.relative_to(root).as_posix()), file) for file in root.glob(f"{lane}/**/*.jsonl.gz")]
    latest: dict[str, int] = {}
    for name, file in sorted(files, key=lambda each: each[0].batch_no):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            i = int(json.loads(line)["i"])
            if later := [other for folder, other in latest.items() if folder >= name.folder and other > i]:
                raise Broken(f"order in {lane}: row {i} is stored after row {max(later)}")
            latest[name.folder] = i


def _judge_numbers(root: Path) -> None:
    numbers: dict[tuple[str, str], list[int]] = {}
    for file in root.rglob("*.jsonl.gz"):
        name = parse_blob_name(file.relative_to(root).as_posix())
        numbers.setdefault((name.lane, name.spool), []).append(name.batch_no)
    for sequence, found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            raise Broken(f"numbers of {sequence} are {sorted(found)}")


def _numbers(delivery: Delivery) -> range:
    return range(delivery.first, delivery.first + _ROWS)


def _bench(folder: Path, boot_id: str) -> Bench[Any]:
    return Bench(Uploader, folder, settings=_SETTINGS, clock=HurriedClock(), boot_id=boot_id)


def _feed(bench: Bench[Any], delivery: Delivery) -> None:
    result = bench.feed(
        delivery.body, input=delivery.lane, device="edge", module="anomaly_router", message_id=delivery.message_id
    )
    if result.how == "held":
        raise Broken(f"message {delivery.message_id} is held: {result.reason} {result.detail}")


def _put_files(root: Path, files: Mapping[str, bytes]) -> None:
    root.mkdir(parents=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def _files(root: Path) -> dict[str, bytes]:
    """What has its name. A part is nothing: it may be gone, or half there."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file() and file.name[0] != "."
    }
