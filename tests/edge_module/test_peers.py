"""Holes in the numbers of other modules: over epochs, late messages and senders that misbehave."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_module.peers import KEEP_EPOCHS, KEEP_PER_SENDER, SCHEMA, Loss, Peers


@pytest.fixture
def peers() -> Iterator[Peers]:
    db, peers = make_peers()
    yield peers
    db.close()


def make_peers() -> tuple[sqlite3.Connection, Peers]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(SCHEMA)
    return db, Peers(db)


def record(peers: Peers, epoch: str, n: int, output: str = "scores", module: str = "scorer") -> Loss | None:
    return peers.record("scores", "edge", module, {"epoch": epoch, "output": output, "n": str(n)}, 0)


def test_messages_of_two_epochs_that_mix_are_no_losses(peers: Peers) -> None:
    assert record(peers, "A", 500) is None  # the first contact sets the start
    for epoch, n in [("B", 1), ("A", 501), ("B", 2), ("A", 502), ("B", 3)]:
        assert record(peers, epoch, n) is None
    assert peers.losses() == []


def test_a_hole_is_told_in_the_epoch_that_has_it_also_after_a_newer_one_began(peers: Peers) -> None:
    record(peers, "A", 1)
    record(peers, "B", 1)
    loss = record(peers, "A", 4)
    assert loss is not None
    assert (loss.epoch, loss.first, loss.last) == ("A", 2, 3)
    assert record(peers, "A", 2) is None
    assert record(peers, "A", 3) is None
    assert peers.losses() == []


def test_a_new_epoch_of_a_known_sender_begins_at_1(peers: Peers) -> None:
    record(peers, "A", 7)
    loss = record(peers, "B", 3)
    assert loss is not None
    assert (loss.epoch, loss.first, loss.last) == ("B", 1, 2)


def test_the_last_epochs_of_an_output_are_kept(peers: Peers) -> None:
    for epoch in range(KEEP_EPOCHS + 2):
        record(peers, f"e{epoch}", 1)
    assert peers.count() == KEEP_EPOCHS
    for epoch in range(2, KEEP_EPOCHS + 2):
        assert record(peers, f"e{epoch}", 2) is None


def test_an_epoch_in_use_outlives_newer_ones_that_ended(peers: Peers) -> None:
    record(peers, "live", 1)
    for number in range(KEEP_EPOCHS * 3):
        record(peers, f"other{number}", 1)
        assert record(peers, "live", number + 2) is None
    assert peers.losses() == []


def test_a_sender_that_varies_its_properties_is_bounded_and_leaves_the_others_alone(peers: Peers) -> None:
    record(peers, "A", 1)
    for number in range(KEEP_PER_SENDER * 3):
        record(peers, f"e{number}", 1, output=f"o{number}", module="wild")
        record(peers, f"e{number}", 5, output="one", module="wild")
    assert peers.count() <= KEEP_PER_SENDER + 1
    assert record(peers, "A", 2) is None
    record(peers, "x" * 10_000, 1)
    assert peers.count() <= KEEP_PER_SENDER + 1


@given(st.permutations([("A", n) for n in range(1, 6)] + [("B", n) for n in range(1, 6)]))
def test_in_any_order_nothing_is_missing_once_all_have_come(order: list[tuple[str, int]]) -> None:
    db, peers = make_peers()
    record(peers, "before", 1)
    for epoch, n in order:
        record(peers, epoch, n)
    assert peers.losses() == []
    db.close()
