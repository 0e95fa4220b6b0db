"""The whole pipeline put to the test on one machine: train, run, send, break, drain, read back, judge.

While devices send, the storage's traffic is taken away for a while and each module is killed once with SIGKILL. What
must be stored is computed before anything starts (`scenario`, `reference`); what is stored is judged at the end.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator import scenario
from simulator.devices import Device, sdk_log
from simulator.errors import UserError
from simulator.folders import StateFolder, read_bundle
from simulator.judgement import judge_run
from simulator.ledger import Ledger
from simulator.local_site import LocalSite, SiteConfig, run_site
from simulator.oracle import Expected, Verdict
from simulator.process import Child
from simulator.reference import Reference
from simulator.replay import read_replay
from simulator.runtime.run_folder import remove_run_folder
from simulator.scenario import Scenario
from simulator.screen import Screen
from simulator.stored import Storage, read_container, read_folder
from simulator.supervisor import COOL_OFF_UNIT_SECS
from simulator.troubles import KILLS, Troubles
from simulator.watch import Watch

# Sending takes this share of the whole; the rest is for the start, the backlog and the verdict.
_SENDING_SHARE = 0.75
_PATIENCE_SECS = 360.0
# A killed module is away for its cool-off and this; no window may close for want of rows before it is back.
_RESTART_SECS = 15.0
_INSIGHTS_SECS = 90.0
_LONGEST_IDLE_SECS = 86_400.0
_SETTLED_POLLS = 3
# Blobs are cut this often, so that there is something to see; the outage's back-off must fit the time there is.
_UPLOADER = {"batch_max_age_secs": 5.0, "retry_max_secs": 15.0}


class DemoFailed(Exception):
    """The run did not come to an end by itself; the text says what was waited for."""


@dataclass(frozen=True)
class DemoPlan:
    root: Path
    state: Path
    seconds: float = 180.0
    seed: int = 7
    devices: int = 12
    scale: float = 1.0
    replay: Path | None = None

    @property
    def send_secs(self) -> float:
        return max(5.0, self.seconds * _SENDING_SHARE)


@dataclass
class Outcome:
    plan: DemoPlan
    scenario: Scenario
    window_rows: int
    expected: Expected
    verdict: Verdict
    storage: Storage
    kills: int
    outage_secs: float
    elapsed_secs: float


def plan_scenario(plan: DemoPlan, start_micros: int) -> Scenario:
    """Raises UserError when the CSV cannot be replayed."""
    if plan.replay is not None:
        return scenario.replay(read_replay(plan.replay), send_secs=plan.send_secs)
    return scenario.pumps(seed=plan.seed, count=plan.devices, send_secs=plan.send_secs, start_micros=start_micros)


def clear_state(folder: StateFolder) -> None:
    """Take away what an earlier demo left. Raises UserError while one runs there, or when it is no such folder."""
    if folder.path.exists() and not folder.is_ours():
        raise UserError(f"{folder.path} holds other things; give an empty or new folder as --state")
    with folder.locked():
        remove_run_folder(folder.path)
        for path in folder.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "supervisor.lock":
                path.unlink()


class Demo:
    """One run; `events` tell the screen what happens."""

    def __init__(self, plan: DemoPlan, screen: Screen, scene: Scenario, start_micros: int) -> None:
        self.plan = plan
        self.folder = StateFolder(plan.state)
        self._screen = screen
        self._scene = scene
        self._start_micros = start_micros
        self._began = time.monotonic()
        self._ledger = Ledger()
        self._troubles = Troubles(plan.send_secs, self._event)

    async def run(self) -> Outcome:
        """Raises UserError for what a user can mend, DemoFailed when the pipeline does not come to rest."""
        bundle_path = await self._train()
        bundle = await asyncio.to_thread(read_bundle, bundle_path)
        reference = Reference(bundle, self._policy_text())
        for delivery in self._scene.deliveries:
            for message in delivery.messages:
                reference.take(delivery.device, message)
        config = SiteConfig(
            root=self.plan.root,
            state=self.plan.state,
            bundle=bundle_path,
            policy=self._policy_file(),
            desired=self._desired(),
            time_scale=self.plan.scale,
            note=self._event,
        )
        with sdk_log(self.folder.logs):
            async with run_site(config) as site:
                await site.wait_until_connected()
                self._event("everything is up")
                storage = await self._exercise(site, reference.expected, bundle.manifest.window.length)
        verdict = judge_run(self._ledger, storage, bundle, self._policy_text(), insights=True)
        return Outcome(
            plan=self.plan,
            scenario=self._scene,
            window_rows=bundle.manifest.window.length,
            expected=reference.expected,
            verdict=verdict,
            storage=storage,
            kills=self._troubles.kills,
            outage_secs=self._troubles.outage_secs,
            elapsed_secs=self._elapsed(),
        )

    async def _exercise(self, site: LocalSite, expected: Expected, window_rows: int) -> Storage:
        watch = Watch(site, self._scene, expected, window_rows=window_rows, began=self._began)
        watching = asyncio.create_task(watch.run(self._screen), name="watch")
        try:
            watch.phase = "sending"
            async with self._devices(site, watch) as devices, asyncio.TaskGroup() as group:
                for delivery, device in zip(self._scene.deliveries, devices, strict=True):
                    group.create_task(self._send(delivery, device, watch), name=f"send {device.name}")
                group.create_task(self._troubles.take_storage_away(site, watch), name="outage")
                for module in KILLS:
                    group.create_task(self._troubles.kill(site, watch, module), name=f"kill {module}")
            self._event(f"all {self._scene.rows:,} rows are sent and acknowledged")
            watch.phase = "draining"
            await self._drain(site, watch)
            watch.phase = "reading back"
            return await asyncio.to_thread(self._read_back, site)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _train(self) -> Path:
        """A bundle by a trainer of its own process, from clean data only."""
        data = self.plan.replay
        command = [sys.executable, "-m", "trainer"]
        output = self.folder.path / "bundle"
        if data is None:
            data = self.folder.path / "training.jsonl"
            self._event(f"training on a day of clean data of {self.plan.devices} pumps")
            lines = scenario.training_lines(
                seed=self.plan.seed, count=self.plan.devices, start_micros=self._start_micros
            )
            await asyncio.to_thread(data.write_text, "".join(f"{line}\n" for line in lines))
            command += [str(data), "--output", str(output), "--name", "pumps"]
        else:
            self._event(f"training on the first {scenario.TRAINING_SHARE:.0%} of {data.name}")
            command += [str(data), "--output", str(output), "--train-fraction", str(scenario.TRAINING_SHARE)]
        trainer = await Child.start("trainer", command, _plain_environment())
        code = await trainer.wait()
        if code != 0:
            said = trainer.tail[-1] if trainer.tail else "it said nothing"
            raise UserError(f"training failed: {said.removeprefix('edgeweir train: ')}")
        return output

    def _desired(self) -> dict[str, Mapping[str, Any]]:
        """Modules divide their waits by the scale, as the cool-off is divided; a process starts no faster for it."""
        idle_secs = min(COOL_OFF_UNIT_SECS + _RESTART_SECS * self.plan.scale, _LONGEST_IDLE_SECS)
        router = {"insight_idle_secs": idle_secs, **self._scene.desired.get("anomaly_router", {})}
        return {"uploader": _UPLOADER, **self._scene.desired, "anomaly_router": router}

    def _policy_file(self) -> Path:
        if self._scene.policy is None:
            return self.plan.root / "modules/anomaly_router/policy.example.yaml"
        path = self.folder.path / "policy.yaml"
        path.write_text(self._scene.policy, encoding="utf-8")
        return path

    def _policy_text(self) -> str:
        return self._policy_file().read_text(encoding="utf-8")

    @contextlib.asynccontextmanager
    async def _devices(self, site: LocalSite, watch: Watch) -> AsyncIterator[list[Device]]:
        async with contextlib.AsyncExitStack() as stack:
            devices = []
            for delivery in self._scene.deliveries:
                access = await site.add_device(delivery.device)
                devices.append(await stack.enter_async_context(Device(access, ledger=self._ledger, note=self._event)))
            await asyncio.gather(*(device.connect() for device in devices))
            watch.devices = len(devices)
            self._event(f"{len(devices)} devices are connected (azure-iot-device)")
            yield devices
            watch.devices = 0

    async def _send(self, delivery: scenario.Delivery, device: Device, watch: Watch) -> None:
        try:
            async with asyncio.timeout(self.plan.send_secs + _PATIENCE_SECS):
                await device.send_all(
                    delivery.messages,
                    pause_secs=delivery.pause_secs,
                    progress=lambda message: watch.sent(device.name, message),
                )
        except TimeoutError:
            done = len(self._ledger.promised(device.name))
            raise DemoFailed(f"{device.name} has {done} messages acknowledged, of {len(delivery.messages)}") from None

    async def _drain(self, site: LocalSite, watch: Watch) -> None:
        """Wait until nothing waits anywhere, flush, and wait again. Raises DemoFailed with what still waits."""
        deadline = time.monotonic() + _PATIENCE_SECS
        for flush in (False, True):
            if flush:
                await self._await_insights(watch)
                await self._flush(site, deadline)
            settled = 0
            while settled < _SETTLED_POLLS:
                waiting = await watch.waiting(spool=flush)
                settled = 0 if waiting else settled + 1
                if waiting and time.monotonic() > deadline:
                    raise DemoFailed(f"after {_PATIENCE_SECS:.0f} s there is still something under way: {waiting}")
                watch.phase = f"draining: {waiting}" if waiting else "draining"
                await asyncio.sleep(0.5)
        self._event("everything has arrived")

    async def _await_insights(self, watch: Watch) -> None:
        """Until the last windows have closed and are in storage. When they do not come, that is for the verdict."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INSIGHTS_SECS):
                while series := watch.uncounted_series():
                    watch.phase = f"draining: insight windows of {series} series are open"
                    await asyncio.sleep(0.5)

    async def _flush(self, site: LocalSite, deadline: float) -> None:
        while True:
            try:
                status, _ = await site.call_method("uploader", "flush")
                if status == 200:
                    return
            except UserError as error:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the uploader does not flush: {error}") from None
            await asyncio.sleep(1)

    def _read_back(self, site: LocalSite) -> Storage:
        assert site.azurite is not None
        storage = Storage()
        read_container(site.azurite.connection_string, site.container, storage)
        read_folder(self.folder.var("uploader"), storage)
        return storage

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _event(self, text: str) -> None:
        self._screen.event(self._elapsed(), text)


def _plain_environment() -> dict[str, str]:
    """Output without colours and wrapping, so that an error is one line."""
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
