"""The uploader: a lane message is acknowledged when its rows are in the spool; its own tasks bring them to storage."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from contract.lanes import LANES, Lane
from contract.messages import Rejected, RejectedPart, Unreadable, encode
from contract.timestamps import format_timestamp
from edge_module import Context, Hold, Incoming, Module, Poison, Transaction
from uploader.accept import Portion, portions_of
from uploader.blob_store import BlobStore
from uploader.directory_store import DirectoryStore
from uploader.sender import Sender, limits_of
from uploader.settings import AzureBlob, Destination, Settings, check, effective_destinations, names_by_lane
from uploader.spool import SCHEMA, Spool, unused_destinations
from uploader.store import Store

# What a message needs beside its bytes: pages, index entries, its identity, a copy of it should it be rejected.
_ROOM_FACTOR = 2
_ROOM_BYTES = 64 * 1024
_INPUT_LANES: dict[str, Lane] = {lane: lane for lane in LANES}


class Uploader(Module[Settings]):
    """One input per lane; no outputs."""

    name: ClassVar[str] = "uploader"
    settings_type = Settings
    inputs = frozenset(LANES)
    schema = SCHEMA

    def __init__(self) -> None:
        self._sender: Sender | None = None

    def open(self, db: sqlite3.Connection, settings: Settings, context: Context) -> None:
        check(settings)
        self._context = context
        self._settings = settings
        self._spool = Spool(db)
        self._report_routing()
        self._sender = Sender(context, self._spool, settings, self._make_store)
        self._measure()

    def configure(self, settings: Settings) -> None:
        check(settings)
        self._settings = settings
        self._report_routing()
        self._running_sender.configure(settings)

    def has_timestamp(self, body: bytes) -> bool:
        """Messages between our modules have an id; one without is never taken for a repeat."""
        return False

    def handle(self, message: Incoming, tx: Transaction) -> None:
        self._require_room(len(message.body))
        lane = _INPUT_LANES[message.input]
        try:
            portions = portions_of(lane, message.body, now_micros=self._context.clock.now_micros())
        except Unreadable as error:
            raise Poison(error.reason, error.detail) from None
        self._keep(portions, tx)

    def store_rejected(self, parts: list[RejectedPart], tx: Transaction) -> None:
        """What this module itself could not understand goes the way of the rejected lane, in the same transaction.

        There is room for it: `handle` has asked for twice the message before it read it.
        """
        now = self._context.clock.now_micros()
        for part in parts:
            self._keep(portions_of("rejected", encode(Rejected(tx.site, [part])), now_micros=now), tx)

    def tick(self, tx: Transaction) -> None:
        self._measure()

    def rollback(self) -> None:
        self._running_sender.paused = self._spool.paused

    def methods(self) -> Mapping[str, Callable[[object], object]]:
        return {
            "flush": lambda _: self._flush(),
            "pause": lambda _: self._set_paused(True),
            "resume": lambda _: self._set_paused(False),
            "status": lambda _: dict(self.status()),
        }

    def status(self) -> Mapping[str, object]:
        """Lists have the worst first: a report that is too long loses their tails."""
        backlog = self._spool.backlog()
        standings = self._running_sender.standings()
        destinations: list[dict[str, object]] = [
            {
                "name": name,
                "reason": standing.reason or None,
                "detail": standing.detail or None,
                "last_success": format_timestamp(standing.last_success) if standing.last_success else None,
            }
            for name, standing in sorted(standings.items(), key=lambda item: -item[1].failures)
        ]
        destinations.extend(
            {"name": name, "reason": "destination_unknown", "detail": None, "last_success": None}
            for name in sorted(unused_destinations(backlog, standings))
        )
        oldest = min((line.oldest for line in backlog), default=None)
        age = 0 if oldest is None else max(0, self._context.clock.now_micros() - oldest) // 1_000_000
        return {
            "backlog_rows": sum(line.rows for line in backlog),
            # In steps of ten seconds: a report is sent when something in it changes.
            "oldest_unsent_age_secs": age - age % 10,
            "spool": self._spool.id,
            "spool_used_bytes": self._spool.used_bytes(),
            "paused": self._spool.paused,
            "destinations": destinations,
            "backlog": [
                {
                    "lane": line.lane,
                    "destination": line.destination or None,
                    "rows": line.rows,
                    "bytes": line.bytes,
                    "batches": line.batches,
                    "oldest": format_timestamp(line.oldest),
                }
                for line in sorted(backlog, key=lambda line: line.oldest)
            ],
        }

    async def background(self) -> None:
        """Send until cancelled; edge_module starts it when the module is open."""
        await self._running_sender.run()

    @property
    def _running_sender(self) -> Sender:
        assert self._sender is not None, "not opened"
        return self._sender

    def _require_room(self, size: int) -> None:
        used, limit = self._spool.used_bytes(), self._settings.spool_max_bytes
        full = used + _ROOM_FACTOR * size + _ROOM_BYTES > limit
        self._running_sender.set_spool_full(full)
        if full:
            raise Hold("spool_full", f"{used} bytes of {limit} are used; every lane stops until something is sent")

    def _keep(self, portions: list[Portion], tx: Transaction) -> None:
        limits = limits_of(self._settings)
        if self._spool.add(portions, limits, now=self._context.clock.now_micros()):
            tx.on_commit(self._running_sender.wake)
        for group, rows, _ in portions:
            tx.count("accepted_rows", rows, lane=group.lane)

    def _flush(self) -> object:
        count = self._spool.flush()
        # The cutter's next look comes after this method's commit: both are on this thread.
        self._running_sender.wake(impatient=True)
        return {"open_batches": count}

    def _set_paused(self, paused: bool) -> object:
        self._spool.set_paused(paused)
        self._running_sender.paused = paused
        if not paused:
            self._running_sender.wake(impatient=True)
        return {"paused": paused}

    def _measure(self) -> None:
        backlog, metrics = self._spool.backlog(), self._context.metrics
        metrics.gauge("spool_used_bytes", self._spool.used_bytes())
        metrics.gauge("backlog_rows", sum(line.rows for line in backlog))
        metrics.gauge("backlog_bytes", sum(line.bytes for line in backlog))
        oldest = min((line.oldest for line in backlog), default=None)
        age = 0 if oldest is None else max(0, self._context.clock.now_micros() - oldest) / 1_000_000
        metrics.gauge("backlog_oldest_age_secs", age)

    def _report_routing(self) -> None:
        lanes = names_by_lane(effective_destinations(self._settings))
        missing = [lane for lane in LANES if lane not in lanes]
        if missing:
            self._context.health.set("no_destination", ", ".join(missing))
        else:
            self._context.health.clear("no_destination")

    def _make_store(self, destination: Destination, settings: Settings) -> Store:
        if isinstance(destination, AzureBlob):
            return BlobStore(destination, settings, self._context.config_dir)
        return DirectoryStore(self._context.state_dir / Path(destination.path))
