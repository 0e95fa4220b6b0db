"""The pumps: one per endpoint, from the stored queues to a module's input or to the upstream file.

A pump takes at most ten messages from the most urgent queue, delivers them one after another and begins again; a
batch that fails is retried from the message that failed, after a growing wait, and is not overtaken by anything more
urgent. Nothing wakes a waiting pump: not a reconnect, not a new message.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from simulator.runtime.connection import Connection, Delivery
from simulator.runtime.counters import Counters
from simulator.runtime.kill_points import Reach, pass_by
from simulator.runtime.messages import Message, outbound_bag
from simulator.runtime.queues import Queued, Queues
from simulator.runtime.routing.routes import UPSTREAM, InputEndpoint
from simulator.runtime.store import StoreFailed
from simulator.runtime.timing import ACK_TIMEOUT_SECS, Pace, retry_delay_secs
from simulator.runtime.topics import input_topic

_LOG = logging.getLogger(__name__)
BATCH_MESSAGES = 10
_UPSTREAM_BATCH_MESSAGES = 100

FindConnection = Callable[[str], Connection | None]


class Pump:
    """Takes from the queues of one endpoint; how a batch is delivered is the subclass's part."""

    def __init__(self, endpoint_id: str, queues: Queues, counters: Counters, pace: Pace) -> None:
        self._id = endpoint_id
        self._queues = queues
        self._counters = counters
        self._pace = pace
        self._wake = asyncio.Event()
        self._attempt = 0
        self._batch_limit = BATCH_MESSAGES

    def wake(self) -> None:
        """Something was queued. Without effect while the pump waits to try again."""
        self._wake.set()

    async def run(self) -> None:
        """Delivers until cancelled."""
        while True:
            try:
                await self._run_once()
            except StoreFailed as error:
                _LOG.error("queue of %s: %s", self._id, error)
                await self._back_off()

    async def _run_once(self) -> None:
        await asyncio.sleep(0)  # what expires or is rejected waits for nobody: let clients in between two batches
        self._wake.clear()
        batch = self._take()
        if not batch:
            await self._wake.wait()
        while batch:
            if await self._deliver(batch):
                self._attempt = 0
            else:
                await self._back_off()

    def _take(self) -> list[Queued]:
        """The next batch without what has expired; time to live is looked at here and nowhere later."""
        now = time.time()
        fresh: list[Queued] = []
        for entry in self._queues.take(self._id, self._batch_limit):
            if entry.expires is not None and entry.expires <= now:
                self._queues.remove(entry)
                self._counters.dropped["ttl_expiry"] += 1
            else:
                fresh.append(entry)
        if not fresh and self._queues.first_priority(self._id) is not None:
            self._wake.set()  # the whole batch had expired: there may be more behind it
        return fresh

    async def _deliver(self, batch: list[Queued]) -> bool:
        """Takes what is done with off the front of the batch; False when its new head must be tried again."""
        raise NotImplementedError

    async def _back_off(self) -> None:
        delay_secs = retry_delay_secs(self._attempt)
        self._attempt += 1
        await asyncio.sleep(self._pace(delay_secs))


class InputPump(Pump):
    """Delivers to one input of one module of this device."""

    def __init__(
        self,
        endpoint: InputEndpoint,
        device_id: str,
        find: FindConnection,
        queues: Queues,
        counters: Counters,
        pace: Pace,
        reach: Reach = pass_by,
    ) -> None:
        super().__init__(endpoint.id, queues, counters, pace)
        self._endpoint = endpoint
        self._device_id = device_id
        self._find = find
        self._reach = reach
        self._connection: Connection | None = None

    async def _deliver(self, batch: list[Queued]) -> bool:
        entry = batch[0]
        match await self._send(entry.message):
            case Delivery.DELIVERED:
                self._reach("delivery_acknowledged")
                self._counters.delivered[self._id] += 1
            case Delivery.REJECTED:
                # A module that unsubscribed while connected: edgeHub throws away what is queued for it.
                self._counters.dropped["invalid"] += 1
            case Delivery.FAILED:
                self._counters.retries[self._id] += 1
                return False
        self._queues.remove(entry)
        self._reach("delivery_removed")
        del batch[0]
        return True

    async def _send(self, message: Message) -> Delivery:
        connection = self._usable_connection()
        if connection is None:
            return Delivery.FAILED
        topic = input_topic(self._device_id, self._endpoint.module, self._endpoint.input, outbound_bag(message))
        qos_limit = 0 if message.app.get("mqtt-qos") == "0" else 1
        return await connection.deliver_input(topic, message.body, self._pace(ACK_TIMEOUT_SECS), qos_limit)

    def _usable_connection(self) -> Connection | None:
        """The connection used last while it is open; only a new one is asked whether it wants inputs at all."""
        if self._connection is None or self._connection.is_closed:
            found = self._find(f"{self._device_id}/{self._endpoint.module}")
            self._connection = found if found is not None and found.features.inputs else None
        return self._connection


class UpstreamPump(Pump):
    """Appends to a file of JSON lines what would go to the cloud; then it counts as delivered."""

    def __init__(self, file: Path, queues: Queues, counters: Counters, pace: Pace) -> None:
        super().__init__(UPSTREAM, queues, counters, pace)
        self._file = file
        self._batch_limit = _UPSTREAM_BATCH_MESSAGES

    async def _deliver(self, batch: list[Queued]) -> bool:
        try:
            self._append(batch)
        except OSError as error:
            _LOG.error("%s: %s", self._file, error)
            return False
        for entry in batch:
            self._queues.remove(entry)
        self._counters.delivered[UPSTREAM] += len(batch)
        batch.clear()
        return True

    def _append(self, batch: list[Queued]) -> None:
        lines = b"".join(upstream_line(entry.message) for entry in batch)
        with self._file.open("ab") as stream:
            stream.write(lines)


def upstream_line(message: Message) -> bytes:
    """One JSON line: sender, properties, and the body as `body` when it is UTF-8, else as `body_base64`."""
    line: dict[str, object] = {
        "device": message.system.get("connectionDeviceId", ""),
        "module": message.system.get("connectionModuleId", ""),
        "system": message.system,
        "properties": message.app,
    }
    try:
        line["body"] = message.body.decode()
    except UnicodeDecodeError:
        line["body_base64"] = base64.b64encode(message.body).decode()
    return msgspec.json.encode(line) + b"\n"
