"""From arrival to acknowledgement, in the order of arrival.

Invariants
- A message's tickets are completed only after the engine said Done. Held messages keep theirs.
- An arrival identical to an unacknowledged one is a copy that edgeHub sent after its time-out: it leaves a ticket, so
  that it gets a PUBACK of its own, and no payload. A module that refuses for hours holds each payload once.
- When a connection ends, so do its tickets; a message that has none left and is not in hand is forgotten, because
  edgeHub sends it again.
- What waits here is bounded: edgeHub keeps one message unacknowledged per queue. A hub that does not is cut off.
- Nothing here decides what a message means: that is `edge_module.engine`.

Runs on the event loop; the engine runs on the worker thread.
"""

import asyncio
import contextlib
import logging
from typing import NamedTuple

import msgspec

from contract.identity import body_digest
from edge_module.ack_queue import Ticket
from edge_module.backoff import Backoff
from edge_module.clock import Clock
from edge_module.connection import Connection
from edge_module.engine import Engine, Held
from edge_module.health import Health
from edge_module.kill_points import Reach
from edge_module.metrics import Metrics
from edge_module.module import Incoming
from edge_module.worker import Worker

_HOLD_FIRST_SECS = 0.5
_HOLD_CAP_SECS = 15.0
_WAITING_LIMIT_MESSAGES = 1024
_WAITING_LIMIT_BYTES = 32 * 1024 * 1024


class _Key(NamedTuple):
    input: str
    device: str
    module: str
    message_id: str | None
    digest: bytes


class _Pending(msgspec.Struct):
    message: Incoming
    digest: bytes
    tickets: list[tuple[Connection, Ticket | None]]


class Pump:
    def __init__(
        self,
        engine: Engine[msgspec.Struct],
        worker: Worker,
        *,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        log: logging.Logger,
        reach: Reach,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._health = health
        self._metrics = metrics
        self._log = log
        self._reach = reach
        self._clock = clock
        self._pending: dict[_Key, _Pending] = {}
        self._pending_bytes = 0
        self._in_hand: _Key | None = None
        self._arrival = asyncio.Event()
        self._retry = asyncio.Event()
        self._opened = asyncio.Event()
        self._is_stopping = False
        self._backoff = Backoff(clock.scaled(_HOLD_FIRST_SECS), clock.scaled(_HOLD_CAP_SECS))
        self._held_reason: str | None = None
        self.last_message_micros: int | None = None

    async def run(self) -> None:
        """Until `stop`: then the message in hand is finished, and the others stay unacknowledged."""
        await self._opened.wait()
        while not self._is_stopping:
            if self._pending:
                await self._handle_oldest()
            else:
                self._arrival.clear()
                await self._arrival.wait()

    def arrived(self, connection: Connection, message: Incoming, ticket: Ticket | None) -> None:
        self._reach("received")
        digest = body_digest(message.body)
        key = _Key(message.input, message.device, message.module, message.message_id, digest)
        self.last_message_micros = self._clock.now_micros()
        pending = self._pending.get(key)
        if pending is not None:
            self._metrics.count("copies_messages")
            pending.tickets.append((connection, ticket))
            return
        self._metrics.count("received_messages", input=message.input)
        self._pending[key] = _Pending(message, digest, [(connection, ticket)])
        self._pending_bytes += len(message.body)
        self._arrival.set()
        if len(self._pending) > _WAITING_LIMIT_MESSAGES or self._pending_bytes > _WAITING_LIMIT_BYTES:
            connection.close("more unacknowledged input than edgeHub ever sends")

    def connection_ended(self, connection: Connection) -> None:
        for key, pending in list(self._pending.items()):
            pending.tickets = [held for held in pending.tickets if held[0] is not connection]
            if not pending.tickets and key != self._in_hand:
                self._forget(key)
        if self._in_hand is None:
            self._release_forgotten()

    def retry_held(self) -> None:
        """Something changed: try the held message now."""
        self._retry.set()

    def opened(self) -> None:
        """The module has its first settings; what came before waits for this."""
        self._opened.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._opened.set()
        self._arrival.set()
        self._retry.set()

    @property
    def waiting(self) -> tuple[int, int]:
        """Unacknowledged messages in memory, and their bytes."""
        return len(self._pending), self._pending_bytes

    async def _handle_oldest(self) -> None:
        key, pending = next(iter(self._pending.items()))
        self._in_hand = key
        self._retry.clear()
        try:
            outcome = await self._worker.run(self._engine.process, pending.message, pending.digest)
        finally:
            self._in_hand = None
        if isinstance(outcome, Held):
            await self._hold(key, pending, outcome)
            return
        self._forget(key)
        self._release("input flows again")
        self._acknowledge(pending)

    def _acknowledge(self, pending: _Pending) -> None:
        self._reach("before_ack")
        for connection, ticket in pending.tickets:
            if ticket is not None:
                connection.hold_flush()
                connection.complete(ticket)
                connection.flush()
        self._reach("after_ack")

    async def _hold(self, key: _Key, pending: _Pending, held: Held) -> None:
        if not pending.tickets:  # its connection ended while it was in hand
            self._forget(key)
            self._release_forgotten()
            return
        if self._held_reason != held.reason:
            self._release("another reason holds input")
            self._held_reason = held.reason
            self._log.warning("input is held", extra={"fields": {"reason": held.reason, "detail": held.detail}})
        self._health.set(held.reason, held.detail)
        self._metrics.count("held_attempts", reason=held.reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next_secs()):
                await self._retry.wait()

    def _release_forgotten(self) -> None:
        """Nothing is left that could be held: edgeHub sends it again, and then it is said again."""
        if not self._pending:
            self._release("held input is forgotten")

    def _release(self, why: str) -> None:
        if self._held_reason is None:
            return
        self._log.info(why, extra={"fields": {"after": self._held_reason}})
        self._health.clear(self._held_reason)
        self._held_reason = None
        self._backoff.reset()

    def _forget(self, key: _Key) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            self._pending_bytes -= len(pending.message.body)
