"""Everything a running module consists of, put together: what each packet reaches, and what runs beside what.

Tasks: the hub client, the pump, the publisher, the twin (settings and reports), the ticker, the module's background.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from importlib import metadata
from typing import Any, TypeVar

import msgspec

from contract.timestamps import format_timestamp
from edge_module.ack_queue import Ticket
from edge_module.clock import SystemClock
from edge_module.connection import Connection
from edge_module.engine import Engine, SettingsOutcome
from edge_module.environment import Environment
from edge_module.health import Health
from edge_module.hub_client import Credentials, HubClient
from edge_module.kill_points import Reach
from edge_module.methods import MethodServer
from edge_module.metrics import Metrics
from edge_module.module import Context, Incoming, Module
from edge_module.outbox import OutboxMessage
from edge_module.publisher import Publisher
from edge_module.pump import Pump
from edge_module.store import Store
from edge_module.transaction import Transaction
from edge_module.twin import Twin, TwinError, TwinRequests
from edge_module.wire import DesiredPatch, MethodRequest, Packet, TwinResponse
from edge_module.worker import Worker

T = TypeVar("T")
_FINISH_SECS = 5.0
_DRAIN_SECS = 2.0
_STALLED_SECS = 120.0


class Host:
    """Construct it on the event loop. `hub_client.Listener` is implemented here."""

    def __init__(
        self,
        module: Module[Any],
        environment: Environment,
        store: Store,
        *,
        credentials: Credentials,
        clock: SystemClock,
        metrics: Metrics,
        health: Health,
        log: logging.Logger,
        reach: Reach,
    ) -> None:
        self._module = module
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._worker = Worker()
        self._extra_report: dict[str, object] = {}
        self._opened = asyncio.Event()
        self._alive_at = clock.monotonic()
        self.beats = 0
        """Grows as long as the event loop runs."""
        self._version = _version_of(module)
        self._engine: Engine[Any] = Engine(
            module,
            store,
            site=environment.site,
            clock=clock,
            metrics=metrics,
            health=health,
            log=log,
            reach=reach,
            outbox_limit_bytes=environment.outbox_limit_bytes,
        )
        self._publisher = Publisher(
            store.outbox, load=self._load_outbox, clock=clock, health=health, metrics=metrics, log=log, reach=reach
        )
        self._worker.after_job = self._take_outgoing
        self._pump = Pump(self._engine, self._worker, clock=clock, health=health, metrics=metrics, log=log, reach=reach)
        self._twin = Twin(
            TwinRequests(clock),
            apply=self._apply,
            build_report=self._build_report,
            clock=clock,
            metrics=metrics,
            log=log,
        )
        self._methods = MethodServer(self._worker, self._engine, log=log)
        self._hub = HubClient(
            environment.address,
            gateway=environment.gateway,
            port=environment.port,
            product=f"edgeweir-{module.name}/{self._version}",
            credentials=credentials,
            listener=self,
            token_ttl_secs=environment.token_ttl_secs,
            clock=clock,
            health=health,
            metrics=metrics,
            log=log,
        )
        self._context = Context(
            site=environment.site,
            device=environment.address.device,
            config_dir=environment.config_dir,
            state_dir=environment.state_dir,
            id_key=store.id_key,
            log=log,
            metrics=metrics,
            health=health,
            clock=clock,
            transact=self._transact,
            report=self._report,
            retry_held=lambda: self._on_loop(self._pump.retry_held),
            reach=reach,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set, then leave in good order. What a task raises comes out as an ExceptionGroup."""
        # Before all else: to open the module may take a slow disk minutes, and the loop runs meanwhile.
        heart = asyncio.create_task(self._beat(), name="heart")
        try:
            await self._start_engine()
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump.run(), name="pump")
                tasks = [pump, *self._start_tasks(group)]
                await stop.wait()
                await self._leave(pump)
                for task in tasks:
                    task.cancel()
        finally:
            heart.cancel()
            # Only now: until its cancellation has reached it, a task of the module's background may still ask for work.
            self._worker.close()

    def vitals(self) -> dict[str, object]:
        """For /healthz; called from another thread."""
        silent = self._clock.monotonic() - self._alive_at
        outbox = self._store.outbox
        return {
            "is_alive": silent < _STALLED_SECS,
            "health": self._health.reasons() or "ok",
            "version": self._version,
            "last_message": self._last_message(),
            "backlog_messages": outbox.unsent_rows,
            "backlog_bytes": outbox.unsent_bytes,
        }

    # hub_client.Listener

    def on_packet(self, connection: Connection, packet: Packet | None, topic: str, ticket: Ticket | None) -> None:
        if isinstance(packet, Incoming):
            self._pump.arrived(connection, packet, ticket)
            return
        # Nothing but an input has an effect that must be safe first; its PUBACK still waits for those before it.
        if ticket is not None:
            connection.complete(ticket)
        match packet:
            case TwinResponse():
                self._twin.requests.answered(packet)
            case DesiredPatch():
                self._twin.desired_changed(packet)
            case MethodRequest():
                self._methods.asked(connection, packet)
            case None:
                self._metrics.count("unreadable_packets")
                self._log.error("packet with an unknown topic", extra={"fields": {"topic": topic}})

    def attached(self, connection: Connection) -> None:
        self._publisher.attach(connection)
        self._twin.attached(connection)

    def detached(self, connection: Connection) -> None:
        self._publisher.detach(connection)
        self._twin.detached(connection)
        self._pump.connection_ended(connection)

    def quiesce(self) -> Awaitable[None]:
        return self._publisher.quiesce()

    def resume(self) -> None:
        self._publisher.resume()

    # Tasks

    async def _start_engine(self) -> None:
        try:
            outcome = await self._worker.run(self._engine.start, self._context)
        except (OSError, sqlite3.Error) as error:
            self._log.error("cannot open the module yet", extra={"fields": {"detail": error}})
        else:
            if outcome is not None:
                self._twin.outcome = outcome
                self._note_opened()

    def _start_tasks(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        jobs: dict[str, Coroutine[Any, Any, None]] = {
            "hub": self._hub.run(),
            "publisher": self._publisher.run(),
            "deadline": self._publisher.watch(),
            "settings": self._twin.keep_settings(),
            "reports": self._twin.keep_reporting(),
            "ticker": self._tick(),
            "locks": self._watch_locks(),
            "background": self._background(),
        }
        return [group.create_task(job, name=name) for name, job in jobs.items()]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._clock.scaled(1.0))
            await self._worker.run(self._engine.tick)
            self._alive_at = self._clock.monotonic()
            self._metrics.gauge("outbox_messages", self._store.outbox.unsent_rows)
            self._metrics.gauge("outbox_bytes", self._store.outbox.unsent_bytes)
            messages, size = self._pump.waiting
            self._metrics.gauge("waiting_messages", messages)
            self._metrics.gauge("waiting_bytes", size)
            self._metrics.gauge("health_reasons", len(self._health.reasons()))

    async def _watch_locks(self) -> None:
        """Apart from the worker, whose jobs may each wait for a lock."""
        while True:
            await asyncio.sleep(self._clock.scaled(1.0))
            self._engine.require_unlocked()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._clock.scaled(1.0))
            self.beats += 1

    async def _background(self) -> None:
        await self._opened.wait()
        await self._module.background()

    async def _leave(self, pump: asyncio.Task[None]) -> None:
        """Finish or abandon what is in hand, let edgeHub take what is ready, say goodbye."""
        self._pump.stop()
        await asyncio.wait([pump], timeout=_FINISH_SECS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECS):
                if self._hub.connection is not None and self._hub.connection.is_open:
                    await self._publisher.drained()
                if pump.done():  # else the worker is busy with what is abandoned
                    await self._worker.run(self._engine.finish)
        self._hub.close()

    # What the parts ask for

    def _take_outgoing(self) -> None:
        outgoing = self._engine.outgoing
        if outgoing:
            self._publisher.offer([outgoing.popleft() for _ in range(len(outgoing))])

    async def _load_outbox(self, after: int, rows: int, size: int) -> list[OutboxMessage]:
        while True:
            try:
                return await self._worker.run(self._store.outbox.unsent, after, rows=rows, size=size)
            except (OSError, sqlite3.Error) as error:
                self._log.error("cannot read the outbox", extra={"fields": {"detail": error}})
                await asyncio.sleep(self._clock.scaled(5.0))

    async def _apply(self, desired: dict[str, object]) -> SettingsOutcome:
        if self._engine.opened and "$version" not in desired and self._twin.outcome is not None:
            return self._twin.outcome  # edgeHub offline, with nothing cached: the last good settings stay
        try:
            outcome = await self._worker.run(self._engine.apply, desired)
        except (OSError, sqlite3.Error) as error:
            raise TwinError(f"the module cannot open: {error}") from error
        self._note_opened()
        if outcome.outcome == "refused":
            self._health.set("bad_settings", f"{outcome.path}: {outcome.reason}")
        else:
            self._health.clear("bad_settings")
        self._pump.retry_held()
        return outcome

    def _note_opened(self) -> None:
        if self._engine.opened:
            self._opened.set()
            self._pump.opened()

    async def _transact(self, effect: Callable[[Transaction], T]) -> T:
        return await self._worker.run(self._engine.transact, effect)

    def _report(self, properties: Mapping[str, object]) -> None:
        def merge() -> None:
            self._extra_report.update(properties)
            self._twin.report_soon()

        self._on_loop(merge)

    def health_changed(self) -> None:
        self._on_loop(self._twin.report_soon)

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the module is leaving
            self._loop.call_soon_threadsafe(call)

    async def _build_report(self) -> dict[str, object]:
        try:
            status, losses, oldest = await self._worker.run(self._read_for_report)
        except sqlite3.Error as error:
            raise TwinError(f"the store cannot be read: {error}") from error
        reasons = self._health.reasons()
        outbox = self._store.outbox
        report: dict[str, object] = {
            "health": {
                "state": "degraded" if reasons else "ok",
                "reasons": [{"code": code, "detail": detail[:200]} for code, detail in reasons.items()],
            },
            "settings": self._twin.outcome,
            "version": self._version,
            "last_message": self._last_message(),
            "backlog_messages": outbox.unsent_rows,
            "oldest_unsent_age_secs": oldest,
            "losses": losses,
            # Messages without an identity are at-least-once: the operator must see that there are any.
            "identity_none_messages": int(self._metrics.value("identity_none_messages")),
            "identity_reused_messages": int(self._metrics.value("identity_reused_messages")),
            **status,
            **self._extra_report,
        }
        return {key: value for key, value in report.items() if value is not None}

    def _read_for_report(self) -> tuple[Mapping[str, object], list[object], int]:
        created = self._store.outbox.oldest_unsent_created()
        age = 0 if created is None else max(0, self._clock.now_micros() - created) // 1_000_000
        losses: list[object] = [
            {**msgspec.structs.asdict(loss), "at": format_timestamp(loss.at)} for loss in self._store.peers.losses()
        ]
        return self._engine.status(), losses, age - age % 10

    def _last_message(self) -> str | None:
        micros = self._pump.last_message_micros
        return None if micros is None else format_timestamp(micros - micros % 1_000_000)


def _version_of(module: Module[Any]) -> str:
    for distribution in (f"edgeweir-{module.name.replace('_', '-')}", "edgeweir-edge-module"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return "unknown"  # run from a source tree that is not installed
