"""From the outbox to edgeHub, in order, several in flight.

Invariants
- Messages are sent in the order of their commits. After a reconnect everything unacknowledged is sent again, in order.
- A message is published only after its commit, and is done only when edgeHub's PUBACK came.
- A message whose PUBACK does not come in time ends the connection: the next one sends it again.
- In memory are the messages in flight and the next ones, bounded; what does not fit stays on disk and is read when its
  turn comes. `tail` is the number of the last message that is or was in memory: what is not is never passed over,
  unless the file has lost it. Then the hole is logged and what lies behind it is sent.

Runs on the event loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from contract.messages import CONTENT_ENCODING, CONTENT_TYPE
from edge_module.clock import Clock
from edge_module.connection import Connection
from edge_module.health import Health
from edge_module.kill_points import Reach
from edge_module.metrics import Metrics
from edge_module.outbox import Outbox, OutboxMessage

WINDOW_MESSAGES = 64
WINDOW_BYTES = 4 * 1024 * 1024
MEMORY_MESSAGES = 1000
MEMORY_BYTES = 8 * 1024 * 1024
ACKNOWLEDGE_SECS = 60.0
# However time is scaled for tests, a PUBACK takes its time on a busy machine.
_ACKNOWLEDGE_AT_LEAST_SECS = 3.0
_CHECK_SECS = 5.0
_SLOW = "hub_slow"

Load = Callable[[int, int, int], Awaitable[list[OutboxMessage]]]


def continuing(tail: int, rows: Iterable[OutboxMessage]) -> tuple[list[OutboxMessage], list[tuple[int, int]]]:
    """Those of the ordered rows that come after `tail`, and the (first, last) numbers that are missing among them."""
    found: list[OutboxMessage] = []
    holes: list[tuple[int, int]] = []
    for row in rows:
        if row.seq <= tail:
            continue
        if row.seq > tail + 1:
            holes.append((tail + 1, row.seq - 1))
        found.append(row)
        tail = row.seq
    return found, holes


class Publisher:
    def __init__(
        self,
        outbox: Outbox,
        *,
        load: Load,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        log: logging.Logger,
        reach: Reach,
    ) -> None:
        self._outbox = outbox
        self._load = load
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._log = log
        self._reach = reach
        self._waiting: deque[OutboxMessage] = deque()
        self._waiting_bytes = 0
        self._in_flight: deque[OutboxMessage] = deque()
        self._in_flight_bytes = 0
        self._sent_at: dict[int, float] = {}  # of what is in flight, by seq
        self._acked: set[int] = set()
        self._tail = outbox.acked_upto
        self._on_disk_upto = outbox.last_seq
        self._connection: Connection | None = None
        self._is_quiet = False
        self._spilled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._drained = asyncio.Event()
        self._check_spilled()

    async def run(self) -> None:
        """Read from disk what is not in memory. Until cancelled."""
        while True:
            await self._spilled.wait()
            rows, holes = continuing(self._tail, await self._load(self._tail, MEMORY_MESSAGES, MEMORY_BYTES))
            if not rows and self._on_disk_upto > self._tail:
                holes.append((self._tail + 1, self._on_disk_upto))
                self._tail = self._on_disk_upto
            for first, last in holes:
                self._log.error("rows are missing from the outbox", extra={"fields": {"first": first, "last": last}})
            for message in rows:
                self._queue(message)
            self._check_spilled()
            self._send()

    async def watch(self) -> None:
        """Leave a hub that acknowledges nothing. Until cancelled."""
        while True:
            await asyncio.sleep(self._clock.scaled(_CHECK_SECS))
            self.check_deadline()

    def check_deadline(self) -> None:
        connection = self._connection
        if connection is None or not connection.is_open or not self._in_flight:
            return
        age = self._clock.monotonic() - self._sent_at[self._in_flight[0].seq]
        if age <= max(self._clock.scaled(ACKNOWLEDGE_SECS), _ACKNOWLEDGE_AT_LEAST_SECS):
            return
        self._health.set(_SLOW, f"{len(self._in_flight)} messages wait for their acknowledgement")
        self._metrics.count("unacknowledged_closes")
        self._log.warning("edgeHub does not acknowledge (hub_slow)", extra={"fields": {"age_secs": round(age)}})
        connection.close("edgeHub does not acknowledge")

    def offer(self, messages: Iterable[OutboxMessage]) -> None:
        """Just committed, in order."""
        for message in messages:
            if message.seq == self._tail + 1 and self._has_room():
                self._queue(message)
            else:
                self._on_disk_upto = max(self._on_disk_upto, message.seq)
        self._check_spilled()
        self._send()

    def attach(self, connection: Connection) -> None:
        """Publish on this connection from now on, beginning with everything unacknowledged."""
        self._connection = connection
        self._waiting.extendleft(reversed(self._in_flight))
        self._waiting_bytes += self._in_flight_bytes
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._sent_at.clear()
        self._acked.clear()
        self._settle()
        self._send()

    def detach(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None

    async def quiesce(self) -> None:
        """Send nothing new; returns when nothing is in flight."""
        self._is_quiet = True
        await self._idle.wait()

    def resume(self) -> None:
        self._is_quiet = False
        self._send()

    async def drained(self) -> None:
        """Return when edgeHub has acknowledged everything that is committed now."""
        self._note_drained()
        await self._drained.wait()

    def _has_room(self) -> bool:
        return len(self._waiting) < MEMORY_MESSAGES and self._waiting_bytes < MEMORY_BYTES

    def _queue(self, message: OutboxMessage) -> None:
        self._waiting.append(message)
        self._waiting_bytes += len(message.body)
        self._tail = message.seq

    def _check_spilled(self) -> None:
        """Wake the reader when something is on disk only, and memory is half empty."""
        if self._on_disk_upto > self._tail and len(self._waiting) < MEMORY_MESSAGES // 2:
            self._spilled.set()
        else:
            self._spilled.clear()

    def _send(self) -> None:
        connection = self._connection
        if connection is None or self._is_quiet or not connection.is_open or not self._waiting:
            return
        sent = False
        connection.hold_flush()
        while (
            self._waiting
            and len(self._in_flight) < WINDOW_MESSAGES
            and (self._in_flight_bytes < WINDOW_BYTES or not self._in_flight)
            and connection.is_open
        ):
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message.body)
            self._in_flight.append(message)
            self._in_flight_bytes += len(message.body)
            self._sent_at[message.seq] = self._clock.monotonic()
            self._idle.clear()
            self._reach("before_publish")
            self._publish(connection, message)
            sent = True
        connection.flush()
        if sent:
            self._reach("after_publish")

    def _publish(self, connection: Connection, message: OutboxMessage) -> None:
        system = [
            ("$.on", message.output),
            ("$.mid", message.message_id),
            ("$.ct", CONTENT_TYPE),
            ("$.ce", CONTENT_ENCODING),
        ]
        topic = connection.address.event_topic(system, message.properties)
        connection.publish(topic, message.body, lambda: self._acknowledged(connection, message))

    def _acknowledged(self, connection: Connection, message: OutboxMessage) -> None:
        if message.seq <= self._outbox.acked_upto:
            return
        self._reach("published_acked")
        self._acked.add(message.seq)
        self._settle()
        self._check_spilled()
        # Also when it came late on a connection that was replaced: what it settles was sent again and makes room.
        self._send()

    def _settle(self) -> None:
        """Move the outbox's mark over the leading run of acknowledged messages."""
        settled, size, upto = 0, 0, self._outbox.acked_upto
        for queue in (self._in_flight, self._waiting):
            if queue is self._waiting and self._in_flight:
                break
            while queue and queue[0].seq in self._acked:
                message = queue.popleft()
                self._acked.discard(message.seq)
                settled, size, upto = settled + 1, size + len(message.body), message.seq
                self._sent_at.pop(message.seq, None)
                if queue is self._in_flight:
                    self._in_flight_bytes -= len(message.body)
                else:
                    self._waiting_bytes -= len(message.body)
        if settled:
            self._outbox.acknowledge(settled, size, upto)
            self._metrics.count("published_messages", settled)
            self._health.clear(_SLOW)
        if not self._in_flight:
            self._idle.set()
        self._note_drained()

    def _note_drained(self) -> None:
        if self._outbox.acked_upto >= self._outbox.last_seq:
            self._drained.set()
        else:
            self._drained.clear()
