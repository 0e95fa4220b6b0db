"""What is held, for how long, and what is said about it, with the engine replaced by its answers."""

import asyncio
import logging
from typing import Any, cast

from edge_module.clock import SystemClock
from edge_module.connection import Connection
from edge_module.engine import Done, Engine, Held
from edge_module.health import Health
from edge_module.metrics import Metrics
from edge_module.module import Incoming
from edge_module.pump import Pump
from edge_module.worker import Worker
from tests.waiting import until


class Answers:
    """Holds everything until it is told not to."""

    is_holding = True
    asked = 0

    def process(self, message: Incoming, digest: bytes) -> Done | Held:
        self.asked += 1
        return Held("spool_full", "no room") if self.is_holding else Done("handled")


async def test_a_held_message_whose_connection_ended_leaves_no_health_reason() -> None:
    answers, health, worker = Answers(), Health(), Worker()
    pump = Pump(
        cast(Engine[Any], answers),
        worker,
        clock=SystemClock(20),
        health=health,
        metrics=Metrics("m"),
        log=logging.getLogger("pump"),
        reach=lambda _: None,
    )
    running = asyncio.create_task(pump.run())
    pump.opened()
    first, second = cast(Connection, object()), cast(Connection, object())
    pump.arrived(first, Incoming("in", b"a", message_id="1"), None)
    pump.arrived(second, Incoming("in", b"b", message_id="2"), None)
    await until(lambda: list(health.reasons()) == ["spool_full"])
    pump.connection_ended(first)
    asked = answers.asked
    await until(lambda: answers.asked > asked)
    assert list(health.reasons()) == ["spool_full"]  # the other one is still held
    pump.connection_ended(second)
    await until(lambda: health.reasons() == {})
    assert pump.waiting == (0, 0)
    running.cancel()
    worker.close()
