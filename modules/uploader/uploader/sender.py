"""The uploader's tasks beside the data path: one that cuts batches, and one per destination that sends them.

One SQLite connection, one thread. The tasks own no connection: they read and write the spool through
`context.transact`, short effects on the worker thread between two messages. A second writing connection would have to
wait for the first (SQLite has one writer), could find its snapshot outdated in the middle of a transaction, and would
have its own opinion of what a full disk looks like. What takes long happens outside of any transaction and off that
thread: compressing, and talking to storage.

Steps at which a kill must change nothing (edge_module.kill_points)
    uploader_before_cut      the records are read, nothing is written
    uploader_after_cut       the batch, its names and numbers are committed; its records are gone
    uploader_before_put      a delivery is read
    uploader_after_put       the destination has answered, or not
    uploader_before_confirm  the destination has the batch; the spool does not know it
    uploader_after_confirm   the delivery is gone

Two ways lead over that ground: the same name again finds what is there (`store.attempt`), and a confirmed delivery is
never seen again.
"""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from contract.batch import JSONL_GZ, compress, metadata_of
from edge_module import Context
from edge_module.transaction import Transaction
from uploader.accept import lines_of
from uploader.schedule import pause_secs
from uploader.settings import Destination, Settings, effective_destinations, names_by_lane
from uploader.spool import Delivery, Limits, OpenBatch, Spool
from uploader.store import Blob, Failed, NameTaken, Outcome, Store, Stored, attempt
from uploader.threads import Bell, in_daemon_thread

T = TypeVar("T")

MakeStore = Callable[[Destination, Settings], Store]

_LOOK_AGAIN_SECS = 1.0
_WAIT_FOR_FAILING_SECS = 60.0

# The kill points between cutting a batch and having it confirmed (`edge_module.kill_points`).
STEPS: Final = (
    "uploader_before_cut",
    "uploader_after_cut",
    "uploader_before_put",
    "uploader_after_put",
    "uploader_before_confirm",
    "uploader_after_confirm",
)


class Standing(msgspec.Struct, frozen=True):
    """How it stands with a destination. `reason` is "" while it works; times in microseconds."""

    reason: str = ""
    detail: str = ""
    failures: int = 0
    last_success: int | None = None


class Sender:
    """`paused`, `configure`, `set_spool_full`, `wake` and `standings` may be used from any thread."""

    def __init__(self, context: Context, spool: Spool, settings: Settings, make_store: MakeStore) -> None:
        self._context = context
        self._spool = spool
        self._settings = settings
        self._make_store = make_store
        self.paused = spool.paused
        self._spool_is_full = False
        self._standings: dict[str, Standing] = {}
        self._bells: dict[str, Bell] = {}
        self._cut_bell: Bell | None = None
        self._settings_bell: Bell | None = None
        self._impatient: set[str] = set()
        self._failing_since: dict[int, float] = {}

    # From the worker thread

    def configure(self, settings: Settings) -> None:
        self._settings = settings
        self._ring(self._settings_bell)
        self._ring(self._cut_bell)

    def set_spool_full(self, full: bool) -> None:
        """A full spool is cut whole: compressed, the same rows take less room."""
        self._spool_is_full = full
        if full:
            self._ring(self._cut_bell)

    def wake(self, *, impatient: bool = False) -> None:
        """Look for due batches now; impatient: also end the pauses after failures."""
        if impatient:
            self._impatient.update(self._bells)
            for bell in list(self._bells.values()):
                bell.ring()
        self._ring(self._cut_bell)

    def standings(self) -> dict[str, Standing]:
        return {
            destination.name: self._standings.get(destination.name, Standing())
            for destination in effective_destinations(self._settings)
        }

    @staticmethod
    def _ring(bell: Bell | None) -> None:
        if bell is not None:
            bell.ring()

    # In the event loop

    async def run(self) -> None:
        """Until cancelled."""
        self._cut_bell, self._settings_bell = Bell(), Bell()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cut_forever(), name="uploader-cutter")
            lines: dict[str, tuple[Destination, Settings, asyncio.Task[None]]] = {}
            while True:
                self._reconcile(group, lines)
                await self._settings_bell.wait(60.0)

    def _reconcile(
        self, group: asyncio.TaskGroup, lines: dict[str, tuple[Destination, Settings, asyncio.Task[None]]]
    ) -> None:
        settings = self._settings
        wanted = {destination.name: destination for destination in effective_destinations(settings)}
        for name, (destination, used, task) in list(lines.items()):
            if wanted.get(name) != destination or used != settings:
                task.cancel()
                del lines[name]
                self._stand(name, msgspec.structs.replace(self._standings.get(name, Standing()), reason="", detail=""))
        for name, destination in wanted.items():
            if name not in lines:
                self._bells[name] = Bell()
                task = group.create_task(self._send_forever(destination, settings), name=f"uploader-{name}")
                lines[name] = (destination, settings, task)

    # Cutting

    async def _cut_forever(self) -> None:
        assert self._cut_bell is not None
        while True:
            if not await self._cut_due():
                await self._cut_bell.wait(self._context.clock.scaled(_LOOK_AGAIN_SECS))

    async def _cut_due(self) -> bool:
        """Cut one batch of every group that is due; whether there may be more."""
        lanes = names_by_lane(effective_destinations(self._settings))
        limits = limits_of(self._settings)
        full, now = self._spool_is_full, self._context.clock.now_micros()
        due = await self._in_spool(lambda tx: self._spool.due(lanes, limits, now=now, everything=full))
        if due is None:
            return False
        failed: list[str] = []
        done = [await self._try_to_cut(batch, limits, failed) for batch in due]
        if failed:
            self._context.health.set("cut_failed", "; ".join(failed))
        else:
            self._context.health.clear("cut_failed")
        return any(done)

    async def _try_to_cut(self, batch: OpenBatch, limits: Limits, failed: list[str]) -> bool:
        try:
            done = await self._cut(batch, limits)
            self._failing_since.pop(batch.open_id, None)
            return done
        except Exception as error:
            # Its records stay and are tried again; the other groups go on: those that wait for it, after a while.
            self._failing_since.setdefault(batch.open_id, self._context.clock.monotonic())
            self._context.log.exception("cutting failed", extra={"fields": {"lane": batch.group.lane}})
            failed.append(f"{batch.group.lane}: {type(error).__name__}")
            return False

    async def _cut(self, batch: OpenBatch, limits: Limits) -> bool:
        passing = self._not_waited_for()
        cut = await self._in_spool(lambda tx: self._spool.read_cut(batch, limits, passing=passing))
        if cut is None:
            return False
        self._context.reach("uploader_before_cut")
        body = await in_daemon_thread(lambda: compress(lines_of(cut.group, cut.bodies)))
        destinations = names_by_lane(effective_destinations(self._settings)).get(cut.group.lane, ())
        if not destinations:
            return False

        def commit(tx: Transaction) -> bool:
            self._spool.commit_cut(cut, body, format=JSONL_GZ, destinations=destinations)
            tx.count("cut_batches", lane=cut.group.lane)
            return True

        if not await self._in_spool(commit):
            return False
        self._context.reach("uploader_after_cut")
        for name in destinations:
            self._ring(self._bells.get(name))
        self._made_room()
        return True

    def _not_waited_for(self) -> set[int]:
        """The groups that fail for so long that their order is given up. A moment without memory is no such reason."""
        before = self._context.clock.monotonic() - self._context.clock.scaled(_WAIT_FOR_FAILING_SECS)
        return {open_id for open_id, since in self._failing_since.items() if since < before}

    # Sending

    async def _send_forever(self, destination: Destination, settings: Settings) -> None:
        """Anomalies first, each lane in the order of its numbers, one at a time, each until it is stored."""
        name, bell = destination.name, self._bells[destination.name]
        store = self._make_store(destination, settings)
        failures = 0
        while True:
            delivery = None if self.paused else await self._in_spool(lambda tx: self._spool.next_delivery(name))
            if delivery is None:
                await bell.wait(self._context.clock.scaled(_LOOK_AGAIN_SECS))
                continue
            self._context.reach("uploader_before_put")
            outcome = await self._attempt(store, delivery, probe=failures > 0)
            self._context.reach("uploader_after_put")
            failures = await self._settle(delivery, outcome, failures)
            if failures:
                secs = pause_secs(failures, cap_secs=settings.retry_max_secs, random=random.random)
                await self._pause(name, store, self._context.clock.scaled(secs))

    async def _attempt(self, store: Store, delivery: Delivery, *, probe: bool) -> Outcome:
        blob = Blob(delivery.name, delivery.body, delivery.md5, metadata_of(delivery.meta))
        try:
            return await in_daemon_thread(lambda: attempt(store, blob, probe=probe))
        except Exception as error:
            self._context.log.exception("attempt failed", extra={"fields": {"destination": delivery.destination}})
            return Failed("internal_error", type(error).__name__)

    async def _settle(self, delivery: Delivery, outcome: Outcome, failures: int) -> int:
        """Do what the outcome asks for; how many failures in a row that makes."""
        match outcome:
            case Stored():
                return 0 if await self._confirm(delivery, outcome) else failures + 1
            case NameTaken(detail):
                return 0 if await self._rename(delivery, detail) else failures + 1
            case Failed(reason, detail):
                self._fail(delivery.destination, reason, detail, failures + 1)
                return failures + 1

    async def _confirm(self, delivery: Delivery, outcome: Stored) -> bool:
        def confirm(tx: Transaction) -> bool:
            self._spool.confirm(delivery.batch_id, delivery.destination)
            for name, value in (
                ("stored_batches", 1),
                ("stored_rows", delivery.meta.rows),
                ("stored_bytes", len(delivery.body)),
                ("found_batches", int(outcome.already)),
            ):
                tx.count(name, value, lane=delivery.lane, destination=delivery.destination)
            return True

        self._context.reach("uploader_before_confirm")
        confirmed = await self._in_spool(confirm)
        if not confirmed:
            return False
        self._context.reach("uploader_after_confirm")
        self._succeed(delivery.destination)
        self._made_room()
        return True

    async def _rename(self, delivery: Delivery, detail: str) -> bool:
        spool = await self._in_spool(lambda tx: self._spool.start_new_sequence(delivery.lane, delivery.destination))
        fields = {"destination": delivery.destination, "lane": delivery.lane, "detail": detail, "new_spool": spool}
        self._context.log.error("a name is taken by something else (name_taken)", extra={"fields": fields})
        self._context.metrics.count("name_taken_batches", lane=delivery.lane, destination=delivery.destination)
        return spool is not None

    async def _pause(self, name: str, store: Store, secs: float) -> None:
        """Wait after a failure. A changed credential, `flush`, `resume` or new settings end it early."""
        self._impatient.discard(name)
        loop = asyncio.get_running_loop()
        until = loop.time() + secs
        while (left := until - loop.time()) > 0 and name not in self._impatient:
            await self._bells[name].wait(min(left, self._context.clock.scaled(_LOOK_AGAIN_SECS)))
            if store.credential_has_changed():
                return

    # What went well and what did not

    def _succeed(self, name: str) -> None:
        before = self._standings.get(name, Standing())
        if before.reason:
            self._context.log.info("destination works again", extra={"fields": {"destination": name}})
        self._stand(name, Standing(last_success=self._context.clock.now_micros()))

    def _fail(self, name: str, reason: str, detail: str, failures: int) -> None:
        before = self._standings.get(name, Standing())
        self._context.metrics.count("failed_attempts", destination=name, reason=reason)
        if before.reason != reason:
            fields = {"destination": name, "reason": reason, "detail": detail}
            self._context.log.warning("destination fails, trying for ever", extra={"fields": fields})
        self._stand(name, Standing(reason, detail, failures, before.last_success))

    def _stand(self, name: str, standing: Standing) -> None:
        before = {line.reason for line in self._standings.values()}
        self._standings[name] = standing
        now: dict[str, list[str]] = {}
        for other, line in self._standings.items():
            if line.reason:
                now.setdefault(line.reason, []).append(f"{other}: {line.detail}")
        for reason in before - now.keys() - {""}:
            self._context.health.clear(reason)
        for reason, details in now.items():
            self._context.health.set(reason, "; ".join(details))

    def _made_room(self) -> None:
        if self._spool_is_full:
            self._context.retry_held()

    async def _in_spool(self, effect: Callable[[Transaction], T]) -> T | None:
        """An effect on the spool. None when the disk refuses: the engine reports that; here it only takes a pause."""
        try:
            return await self._context.transact(effect)
        except (sqlite3.Error, OSError) as error:
            self._context.log.warning("spool refuses", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(self._context.clock.scaled(_LOOK_AGAIN_SECS))
            return None


def limits_of(settings: Settings) -> Limits:
    return Limits(settings.batch_max_rows, settings.batch_max_bytes, round(settings.batch_max_age_secs * 1_000_000))
