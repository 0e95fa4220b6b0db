"""The whole pipeline as processes, fed by SDK devices, judged against an undisturbed computation."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path

from policy import compile_policy
from simulator.delivery import Message, into_messages
from simulator.devices import Device
from simulator.errors import UserError
from simulator.folders import read_bundle
from simulator.judgement import judge_run
from simulator.ledger import Ledger
from simulator.local_site import EDGE_HUB, LocalSite, SiteConfig, run_site
from simulator.machines import FaultPlan, Pump, machine_names
from simulator.oracle import Verdict
from simulator.process import Child
from simulator.scenario import training_lines
from simulator.stored import Storage, read_container, read_folder
from simulator.supervisor import COOL_OFF_LIMIT_SECS

ROOT = Path(__file__).parent.parent.parent
POLICY = ROOT / "modules/anomaly_router/policy.example.yaml"
PUMPS = 4
SEED = 11
START_MICROS = 1_700_000_000_000_000
ROWS_PER_MESSAGE = 5
_DRAIN_SECS = 90.0
_SETTLED_POLLS = 4


async def train(folder: Path) -> Path:
    """A bundle for the pumps, fitted by a trainer process."""
    data = folder / "training.jsonl"
    data.write_text("\n".join(training_lines(seed=SEED, count=PUMPS, start_micros=START_MICROS)) + "\n")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "trainer",
        data,
        "--output",
        folder / "bundle",
        "--name",
        "pumps",
    ]
    trainer = await Child.start("trainer", command, dict(os.environ))
    assert await trainer.wait() == 0, "\n".join(trainer.tail)
    return folder / "bundle"


@contextlib.asynccontextmanager
async def pipeline(
    state: Path,
    bundle: Path,
    *,
    time_scale: float,
    cool_off_limit_secs: float = COOL_OFF_LIMIT_SECS,
    fault_proxies: bool = False,
) -> AsyncIterator[LocalSite]:
    """All modules connected."""
    config = SiteConfig(
        root=ROOT,
        state=state,
        bundle=bundle,
        policy=POLICY,
        desired={"uploader": {"batch_max_age_secs": 1.0, "retry_max_secs": 1.0}},
        time_scale=time_scale,
        fault_proxies=fault_proxies,
        cool_off_limit_secs=cool_off_limit_secs,
    )
    async with run_site(config) as site:
        await site.wait_until_connected()
        yield site


async def kill_hub(site: LocalSite) -> None:
    """SIGKILL edgeHub; returns once it runs again and all modules are back."""
    starts = site.supervisor.starts(EDGE_HUB)
    assert site.supervisor.send_signal(EDGE_HUB, signal.SIGKILL)
    async with asyncio.timeout(_DRAIN_SECS):
        while site.supervisor.starts(EDGE_HUB) == starts or not await are_connected(site):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def are_connected(site: LocalSite) -> bool:
    try:
        return await site.connected_modules() >= set(site.modules)
    except UserError:
        return False  # its control socket does not answer yet


class Feeder:
    """Pumps that send, message after message, until they are told to stop; then everything sent is known."""

    def __init__(self, site: LocalSite, *, pause_secs: float = 0.05) -> None:
        self.ledger = Ledger()
        self._site = site
        self._pause_secs = pause_secs
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def run(self, *extra: tuple[str, Message]) -> None:
        """`extra` are (device, message) pairs that are sent first."""
        async with asyncio.TaskGroup() as group:
            for name in machine_names(PUMPS):
                group.create_task(self._feed(name, messages_of(name)))
            for number, (name, message) in enumerate(extra):
                group.create_task(self._feed(f"{name}-{number}", iter([message])))

    async def _feed(self, name: str, messages: Iterator[Message]) -> None:
        async with Device(await self._site.add_device(name), ledger=self.ledger) as device:
            await device.connect()
            for message in messages:
                if self._stop.is_set():
                    break
                await device.send(message)
                await asyncio.sleep(self._pause_secs)


def messages_of(name: str) -> Iterator[Message]:
    pump = Pump(SEED, name, START_MICROS, plan=FaultPlan(rows=100_000))
    return into_messages(islice(pump.readings(), 100_000), device=name, rows_per_message=ROWS_PER_MESSAGE)


async def settle(site: LocalSite) -> None:
    """Wait, with a bound, until nothing waits in edgeHub, in an outbox or in the spool."""
    meters = {name: site.meter(name) for name in site.modules}
    settled = 0
    flushed = False
    async with asyncio.timeout(_DRAIN_SECS):
        while settled < _SETTLED_POLLS:
            await asyncio.sleep(0.25)
            answers = [await meter.read() for meter in meters.values()]
            waiting = int((await site.control.stats())["queued_total"])
            waiting += sum(int(meter.gauge(f"edgeweir_{name}_outbox_messages")) for name, meter in meters.items())
            spooled = int(meters["uploader"].gauge("edgeweir_uploader_backlog_rows"))
            if not all(answers) or waiting:
                settled = 0
            elif spooled or not flushed:
                settled = 0
                flushed = await flush(site)
            else:
                settled += 1


async def flush(site: LocalSite) -> bool:
    status, _ = await site.call_method("uploader", "flush")
    return status == 200


async def read_back(site: LocalSite) -> Storage:
    """Everything that reached storage, and the local rejected lane."""
    assert site.azurite is not None
    storage = Storage()
    await asyncio.to_thread(read_container, site.azurite.connection_string, site.container, storage)
    await asyncio.to_thread(read_folder, site.folder.var("uploader"), storage)
    return storage


def verdict_of(bundle: Path, ledger: Ledger, storage: Storage) -> Verdict:
    text = POLICY.read_text()
    return judge_run(ledger, storage, read_bundle(bundle), text, policy_hash=compile_policy(text).hash)
