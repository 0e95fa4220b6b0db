"""What is sent when, on a real outbox, over connections that only remember."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from edge_module.clock import Clock, SystemClock
from edge_module.connection import Connection
from edge_module.health import Health
from edge_module.metrics import Metrics
from edge_module.outbox import OutboxMessage
from edge_module.publisher import ACKNOWLEDGE_SECS, WINDOW_MESSAGES, Publisher, continuing
from edge_module.store import Store
from edge_module.testing import ManualClock
from edge_module.wire import Address
from tests.waiting import until


class Line:
    """The publishing side of a connection: what was sent, to be acknowledged when a test says so."""

    def __init__(self) -> None:
        self.address = Address("hub.example", "edge", "echo")
        self.sent: list[bytes] = []
        self.acknowledgements: list[Callable[[], None]] = []
        self.is_open = True
        self.why = ""

    def hold_flush(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def publish(self, topic: str, payload: bytes, acknowledged: Callable[[], None]) -> None:
        self.sent.append(payload)
        self.acknowledgements.append(acknowledged)

    def acknowledge_all(self) -> None:
        while self.acknowledgements:
            self.acknowledgements.pop(0)()

    def close(self, why: str) -> None:
        self.is_open = False
        self.why = why

    def as_connection(self) -> Connection:
        return cast(Connection, self)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "s.db", clock=SystemClock(), boot_id="b")
    yield store
    store.close()


def make_publisher(store: Store, clock: Clock | None = None, health: Health | None = None) -> Publisher:
    async def load(after: int, rows: int, size: int) -> list[OutboxMessage]:
        await asyncio.sleep(0)
        return store.outbox.unsent(after, rows=rows, size=size)

    return Publisher(
        store.outbox,
        load=load,
        clock=clock or SystemClock(),
        health=health or Health(),
        metrics=Metrics("m"),
        log=logging.getLogger("publisher"),
        reach=lambda _: None,
    )


def commit(store: Store, count: int) -> list[OutboxMessage]:
    store.begin()
    for number in range(count):
        store.outbox.append("out", b"%d" % number, {})
    return store.commit()


async def test_late_acknowledgements_on_a_replaced_connection_refill_the_window(store: Store) -> None:
    publisher, old, new = make_publisher(store), Line(), Line()
    publisher.attach(old.as_connection())
    publisher.offer(commit(store, WINDOW_MESSAGES * 3))
    publisher.attach(new.as_connection())
    assert len(old.sent) == len(new.sent) == WINDOW_MESSAGES
    old.acknowledge_all()
    assert len(new.sent) == WINDOW_MESSAGES * 2
    new.acknowledge_all()
    assert store.outbox.unsent_rows == 0
    assert new.sent == [b"%d" % number for number in range(WINDOW_MESSAGES * 3)]


async def test_a_hub_that_acknowledges_nothing_in_time_is_left_and_named_until_it_does(store: Store) -> None:
    clock, health = ManualClock(), Health()
    publisher, slow, quick = make_publisher(store, clock, health), Line(), Line()
    publisher.attach(slow.as_connection())
    publisher.offer(commit(store, 2))
    clock.advance(ACKNOWLEDGE_SECS - 1)
    publisher.check_deadline()
    assert slow.why == ""
    slow.acknowledgements.pop(0)()
    clock.advance(2)
    publisher.check_deadline()
    assert slow.why
    assert list(health.reasons()) == ["hub_slow"]
    publisher.attach(quick.as_connection())
    publisher.check_deadline()
    assert quick.why == ""  # what is sent again has its own deadline
    assert quick.sent == [b"1"]
    assert list(health.reasons()) == ["hub_slow"]
    quick.acknowledge_all()
    assert health.reasons() == {}


async def test_one_acknowledgement_in_time_does_not_excuse_an_older_message(store: Store) -> None:
    clock = ManualClock()
    publisher, line = make_publisher(store, clock), Line()
    publisher.attach(line.as_connection())
    publisher.offer(commit(store, 2))
    clock.advance(ACKNOWLEDGE_SECS + 1)
    line.acknowledgements.pop(1)()
    publisher.check_deadline()
    assert line.why


def test_what_continues_is_told_from_what_is_behind_a_hole(store: Store) -> None:
    one, two, three, four = commit(store, 4)
    assert continuing(0, [one, two]) == ([one, two], [])
    assert continuing(1, [one, two]) == ([two], [])
    assert continuing(0, [one, three, four]) == ([one, three, four], [(2, 2)])
    assert continuing(0, [three]) == ([three], [(1, 2)])


async def test_rows_behind_a_hole_in_the_outbox_are_sent_and_the_hole_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    commit(store, 6)
    store.db.execute("DELETE FROM outbox WHERE seq IN (1, 4)")
    publisher, line = make_publisher(store), Line()
    publisher.attach(line.as_connection())
    running = asyncio.create_task(publisher.run())
    await until(lambda: len(line.sent) == 4)
    assert line.sent == [b"1", b"2", b"4", b"5"]
    line.acknowledge_all()
    await publisher.drained()
    assert store.outbox.acked_upto == 6
    assert "rows are missing from the outbox" in caplog.text
    running.cancel()


async def test_an_outbox_that_lost_all_its_rows_does_not_keep_the_reader_busy(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    commit(store, 3)
    publisher, line = make_publisher(store), Line()
    store.db.execute("DELETE FROM outbox")
    publisher.attach(line.as_connection())
    running = asyncio.create_task(publisher.run())
    await until(lambda: "rows are missing from the outbox" in caplog.text)
    publisher.offer(commit(store, 1))
    await until(lambda: line.sent == [b"0"])
    line.acknowledge_all()
    await publisher.drained()
    running.cancel()


async def test_seq_goes_on_from_its_old_value_after_a_reboot_of_an_empty_outbox(store: Store, tmp_path: Path) -> None:
    commit(store, 5)
    store.outbox.acknowledge(5, 5, 5)
    commit(store, 0)
    store.begin()
    store.outbox.prune(5)
    store.commit()
    store.close()
    rebooted = Store(tmp_path / "s.db", clock=SystemClock(), boot_id="another")
    assert (rebooted.outbox.last_seq, rebooted.outbox.acked_upto, rebooted.outbox.unsent_rows) == (5, 5, 0)
    assert [message.seq for message in commit(rebooted, 1)] == [6]
    rebooted.close()


async def test_a_store_that_an_older_version_left_without_marks_publishes_again(store: Store, tmp_path: Path) -> None:
    commit(store, 5)
    store.outbox.acknowledge(3, 3, 3)
    commit(store, 0)
    store.begin()
    store.outbox.prune(3)
    store.commit()
    store.db.execute("DELETE FROM published")
    store.close()
    opened = Store(tmp_path / "s.db", clock=SystemClock(), boot_id="b")
    assert (opened.outbox.last_seq, opened.outbox.acked_upto, opened.outbox.unsent_rows) == (5, 3, 2)
    opened.close()
