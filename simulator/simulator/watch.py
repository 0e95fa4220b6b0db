"""What is going on while a demo runs: asks edgeHub, the modules and the storage, about twice a second."""

import asyncio
import contextlib
import time
from collections import Counter, deque

from azure.core.exceptions import AzureError

from contract.batch import parse_blob_name
from simulator.delivery import Message
from simulator.detection import collect_episodes, score_faults
from simulator.errors import UserError
from simulator.faults import Fault
from simulator.local_site import LocalSite
from simulator.oracle import Expected, insight_problems
from simulator.scenario import Scenario
from simulator.scrape import Meter
from simulator.screen import Screen, Snapshot
from simulator.stored import Storage, list_rows, read_blobs

_PERIOD_SECS = 0.5
_RATE_SECS = 5.0
_STORAGE_PERIOD_SECS = 2.0


class Rate:
    """Rows per second over the last few seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, total: float) -> float:
        self._points.append((now, total))
        while len(self._points) > 2 and now - self._points[0][0] > _RATE_SECS:
            self._points.popleft()
        first_at, first = self._points[0]
        return max(0.0, (total - first) / (now - first_at)) if now > first_at else 0.0


class Watch:
    def __init__(self, site: LocalSite, scene: Scenario, expected: Expected, *, window_rows: int, began: float) -> None:
        self.phase = ""
        self.storage = "reachable"
        self.devices = 0
        self._site = site
        self._scene = scene
        self._expected = expected
        self._window_rows = window_rows
        self._began = began
        self._sent: set[str] = set()
        self._sent_rows: Counter[str] = Counter()
        self._meters: dict[str, Meter] = {name: site.meter(name) for name in site.modules}
        self._answered: dict[str, bool] = {}
        self._queued = 0
        self._rates = {"sent": Rate(), "scored": Rate()}
        self._stored_rows = self._blobs = 0
        self._known: set[str] = set()
        self._seen = Storage()

    def sent(self, device: str, message: Message) -> None:
        """Acknowledged by the hub; a repeat adds nothing."""
        if message.message_id not in self._sent:
            self._sent.add(message.message_id)
            self._sent_rows[device] += len(message.texts)

    async def run(self, screen: Screen) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_storage())
            while True:
                await self._look()
                screen.update(self.snapshot())
                await asyncio.sleep(_PERIOD_SECS)

    async def waiting(self, *, spool: bool) -> str:
        """What is still on its way, in words; "" when nothing is. The spool counts when `spool`."""
        await self._look()
        silent = [name for name, answered in self._answered.items() if not answered]
        if silent:
            return f"{', '.join(silent)} is not up"
        if self._queued:
            return f"{self._queued:,} messages in edgeHub"
        for name, meter in self._meters.items():
            if outgoing := meter.gauge(f"edgeweir_{name}_outbox_messages"):
                return f"{outgoing:.0f} messages leaving {name}"
        if spool and (rows := self._meters["uploader"].gauge("edgeweir_uploader_backlog_rows")):
            return f"{rows:,.0f} rows in the uploader's spool"
        return ""

    def uncounted_series(self) -> int:
        """How many series have insights in storage that do not tell of all their rows, at the last look."""
        return len(insight_problems(self._expected, self._seen.lane("insights")))

    async def is_busy(self, module: str) -> bool:
        """Whether edgeHub has messages for the module that are not acknowledged, or the module rows in its spool."""
        with contextlib.suppress(UserError):  # edgeHub is away for the moment
            if await self._site.queued_for(module):
                return True
        meter = self._site.meter(module)
        return await meter.read() and meter.gauge(f"edgeweir_{module}_backlog_rows") > 0

    def snapshot(self) -> Snapshot:
        now = time.monotonic()
        scored = self._meters["scorer"].total("edgeweir_scorer_rows_total")
        faults = self._injected()
        events = self._seen.lane("anomalies")
        episodes = collect_episodes(self._expected, events)
        found = sum(score_faults(faults, episodes, window_rows=self._window_rows).found.values())
        return Snapshot(
            elapsed_secs=now - self._began,
            phase=self.phase,
            devices=self.devices,
            sent_rows=self._sent_rows.total(),
            planned_rows=self._scene.rows,
            sent_rate=self._rates["sent"].add(now, self._sent_rows.total()),
            scored_rate=self._rates["scored"].add(now, scored),
            episodes=len(episodes),
            highest_score=max(
                (float(event.get("peak_score", 0)) for event in self._seen.lane("anomalies")), default=0.0
            ),
            hub_messages=self._queued,
            spooled_rows=int(self._meters["uploader"].gauge("edgeweir_uploader_backlog_rows")),
            stored_rows=self._stored_rows,
            blobs=self._blobs,
            faults_found=found,
            faults_injected=len(faults),
            storage=self.storage,
            modules=tuple((name, "up" if self._site.supervisor.pid(name) else "down") for name in self._meters),
        )

    def _injected(self) -> list[Fault]:
        """Faults whose first row has been sent; a pump's device has the pump's name and sends its rows in order."""
        return [fault for fault in self._scene.faults if self._sent_rows[fault.machine] > fault.first]

    async def _look(self) -> None:
        answers = await asyncio.gather(*(meter.read() for meter in self._meters.values()))
        self._answered = dict(zip(self._meters, answers, strict=True))
        try:
            self._queued = int((await self._site.control.stats())["queued_total"])
        except UserError:
            self._answered["edgeHub"] = False

    async def _look_at_storage(self) -> None:
        """Straight at Azurite, past the proxy: an outage is the uploader's, not ours."""
        azurite = self._site.azurite
        assert azurite is not None
        while True:
            with contextlib.suppress(AzureError):  # it is asked again in two seconds; the verdict does not rest on it
                await self._read_storage(azurite.connection_string)
            await asyncio.sleep(_STORAGE_PERIOD_SECS)

    async def _read_storage(self, connection_string: str) -> None:
        listed = await asyncio.to_thread(list_rows, connection_string, self._site.container)
        self._blobs = len(listed)
        self._stored_rows = sum(blob.rows for blob in listed if parse_blob_name(blob.name).lane == "readings")
        fresh = [
            blob.name
            for blob in listed
            if blob.name not in self._known and parse_blob_name(blob.name).lane in ("anomalies", "insights")
        ]
        if fresh:
            await asyncio.to_thread(read_blobs, connection_string, self._site.container, fresh, self._seen)
        self._known.update(fresh)
