"""The spool against a model of it: a list of rows per group, a list of batches per destination."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contract.batch import JSONL_GZ, parse_blob_name
from contract.lanes import LANES, Lane
from uploader.accept import Group, Portion
from uploader.spool import MAX_OPEN_BATCHES, SCHEMA, Cut, Limits, Spool

SECOND = 1_000_000
LIMITS = Limits(max_rows=10, max_bytes=1000, max_age_micros=60 * SECOND)
DESTINATIONS = ("near", "far")


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    db.executescript(SCHEMA)
    return db


def group(lane: Lane = "readings", folder: str = "date=2026-11-23/hour=18") -> Group:
    return Group(lane, folder, "site", "p", "m")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    db = connect(tmp_path / "spool.db")
    yield Spool(db)
    db.close()


def cut_all(spool: Spool, *, now: int = 0, everything: bool = True, to: tuple[str, ...] = DESTINATIONS) -> list[Cut]:
    """Cut until nothing is due; the body of a batch is its records joined."""
    cuts = []
    while due := spool.due(LANES, LIMITS, now=now, everything=everything):
        for batch in due:
            cut = spool.read_cut(batch, LIMITS)
            if cut is None:
                continue
            spool.commit_cut(cut, b"".join(cut.bodies), format=JSONL_GZ, destinations=to)
            cuts.append(cut)
    return cuts


def test_nothing_is_due_before_its_time(spool: Spool) -> None:
    body = b"x" * (LIMITS.max_bytes - 9 * len(group().prefix()) - 1)
    assert not spool.add([Portion(group(), 9, body)], LIMITS, now=0)
    assert spool.due(LANES, LIMITS, now=LIMITS.max_age_micros - 1) == []


@pytest.mark.parametrize(("rows", "size", "now"), [(10, 1, 0), (1, 1000, 0), (1, 1, LIMITS.max_age_micros), (1, 1, -1)])
def test_rows_bytes_age_or_a_clock_set_back_make_a_batch_due(spool: Spool, rows: int, size: int, now: int) -> None:
    assert spool.add([Portion(group(), rows, b"x" * size)], LIMITS, now=0) is (now == 0)
    assert [due.group for due in spool.due(LANES, LIMITS, now=now)] == [group()]


def test_a_lane_without_a_destination_is_never_due(spool: Spool) -> None:
    spool.add([Portion(group("insights"), 10, b"x")], LIMITS, now=0)
    assert spool.due(["readings"], LIMITS, now=0, everything=True) == []


def test_a_batch_stays_within_its_limits_and_keeps_the_order(spool: Spool) -> None:
    # 300 bytes and two envelopes of 40: two records fit into 1,000 bytes.
    bodies = [bytes([i]) * 300 for i in range(7)]
    spool.add([Portion(group(), 2, body) for body in bodies], LIMITS, now=0)
    cuts = cut_all(spool)
    assert [cut.rows for cut in cuts] == [4, 4, 4, 2]
    assert [body for cut in cuts for body in cut.bodies] == bodies


def test_a_record_larger_than_the_limits_is_a_batch_of_its_own(spool: Spool) -> None:
    spool.add([Portion(group(), 1, b"a"), Portion(group(), 50, b"x" * 5000), Portion(group(), 1, b"b")], LIMITS, now=0)
    assert [cut.rows for cut in cut_all(spool)] == [1, 50, 1]


def test_of_too_many_open_batches_the_oldest_are_cut(spool: Spool) -> None:
    for number in range(MAX_OPEN_BATCHES + 2):
        spool.add([Portion(group(folder=f"f{number}"), 1, b"x")], LIMITS, now=number)
    due = spool.due(LANES, LIMITS, now=MAX_OPEN_BATCHES + 2)
    assert [batch.group.folder for batch in due] == ["f0", "f1"]


def test_the_rest_of_a_group_is_as_old_as_its_own_first_record(spool: Spool) -> None:
    spool.add([Portion(group(), 10, b"x")], LIMITS, now=0)
    spool.add([Portion(group(), 1, b"y")], LIMITS, now=5 * SECOND)
    cut_all(spool, now=6 * SECOND, everything=False)
    assert spool.due(LANES, LIMITS, now=LIMITS.max_age_micros) == []
    assert len(spool.due(LANES, LIMITS, now=LIMITS.max_age_micros + 5 * SECOND)) == 1


def bodies_by_number(spool: Spool, lane: Lane = "readings") -> list[bytes]:
    """The records of a lane in the order that a reader finds them in: each is one byte here."""
    found = {}
    while delivery := spool.next_delivery("near"):
        if delivery.lane == lane:
            found[delivery.meta.batch_no] = delivery.body
        spool.confirm(delivery.batch_id, "near")
    return [bytes([byte]) for number in sorted(found) for byte in found[number]]


def add_each(spool: Spool, records: list[tuple[str, bytes]]) -> None:
    for hour, body in records:
        spool.add([Portion(group(folder=f"date=2026-11-23/hour={hour}"), 4, body)], LIMITS, now=0)


def test_a_young_hour_that_is_full_is_numbered_after_the_old_hour_before_it(spool: Spool) -> None:
    """A series goes on from hour to hour; a reader who goes by batch number finds its rows in their order."""
    add_each(spool, [("18", b"1"), ("19", b"2"), ("19", b"3"), ("19", b"4")])
    cut_all(spool, everything=False)
    assert b"".join(bodies_by_number(spool)) == b"123"


def test_an_old_hour_of_several_batches_is_numbered_before_the_young_one(spool: Spool) -> None:
    add_each(spool, [*(("18", bytes([48 + i])) for i in range(7)), *(("19", bytes([48 + i])) for i in range(7, 10))])
    cut_all(spool, everything=False)
    assert b"".join(bodies_by_number(spool)).startswith(b"0123456")


def test_what_comes_for_an_old_hour_while_a_young_one_is_to_be_cut_goes_first(spool: Spool) -> None:
    add_each(spool, [("19", b"1"), ("19", b"2"), ("19", b"3")])
    (batch,) = spool.due(LANES, LIMITS, now=0)
    add_each(spool, [("18", b"4"), ("19", b"5")])
    limits = LIMITS._replace(max_rows=100)
    cut = spool.read_cut(batch, limits)
    assert cut is not None
    assert cut.bodies == [b"1", b"2", b"3"]
    spool.commit_cut(cut, b"".join(cut.bodies), format=JSONL_GZ, destinations=DESTINATIONS)
    assert spool.read_cut(batch, limits) is None
    assert spool.read_cut(
        batch, limits, passing=[line.open_id for line in spool.due(LANES, LIMITS, now=0, everything=True)]
    )
    cut_all(spool)
    assert b"".join(bodies_by_number(spool)) == b"12345"


def test_a_policy_that_changes_within_an_hour_and_changes_back_keeps_the_order(spool: Spool) -> None:
    one, other = group(), group()._replace(policy="q")
    for number, where in enumerate((one, one, other, one, other, other)):
        spool.add([Portion(where, 4, b"%d" % number)], LIMITS, now=0)
    cut_all(spool, everything=False)
    cut_all(spool)
    assert b"".join(bodies_by_number(spool)) == b"012345"


def test_anomalies_overtake_what_was_cut_before_them(spool: Spool) -> None:
    for lane in ("readings", "insights", "anomalies", "readings"):
        spool.add([Portion(group(lane), 10, b"x")], LIMITS, now=0)
        cut_all(spool)
    order = []
    while delivery := spool.next_delivery("near"):
        order.append(delivery.lane)
        spool.confirm(delivery.batch_id, "near")
    assert order == ["anomalies", "readings", "insights", "readings"]


def test_a_new_sequence_names_all_that_waits_anew_and_nothing_else(spool: Spool) -> None:
    for _ in range(3):
        spool.add([Portion(group(), 10, b"x")], LIMITS, now=0)
        spool.add([Portion(group("insights"), 10, b"x")], LIMITS, now=0)
        cut_all(spool)
    first = spool.next_delivery("near")
    assert first is not None
    spool.confirm(first.batch_id, "near")
    new = spool.start_new_sequence("readings", "near")
    found = {"near": [], "far": []}  # type: dict[str, list[tuple[str, str, int, str | None]]]
    for destination, seen in found.items():
        while delivery := spool.next_delivery(destination):
            seen.append((delivery.lane, delivery.meta.spool, delivery.meta.batch_no, delivery.meta.previous_sha256))
            assert parse_blob_name(delivery.name).spool == delivery.meta.spool
            spool.confirm(delivery.batch_id, destination)
    digest = first.meta.sha256
    ours = [(spool.id, number, previous) for number, previous in ((1, None), (2, digest), (3, digest))]
    assert [line[1:] for line in found["near"] if line[0] == "readings"] == [(new, 1, None), (new, 2, digest)]
    assert [line[1:] for line in found["near"] if line[0] == "insights"] == ours
    assert [line[1:] for line in found["far"] if line[0] == "readings"] == ours


def goes_before(where: Group, other: Group) -> bool:
    return (where.lane, where.policy) == (other.lane, other.policy) and where.folder <= other.folder


class SpoolMachine(RuleBasedStateMachine):
    """Every committed step survives a reopening, every uncommitted one leaves nothing."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.db"
        self.db = connect(self.path)
        self.spool = Spool(self.db)
        self.id = self.spool.id
        self.now = 0
        self.serial = 0
        self.open_rows: dict[Group, list[bytes]] = {}
        self.sizes: dict[bytes, int] = {}
        self.owed: dict[str, list[tuple[Lane, tuple[bytes, ...]]]] = {name: [] for name in DESTINATIONS}
        self.numbers: dict[tuple[Lane, str], int] = {}
        self.digests: dict[tuple[Lane, str], str | None] = {}

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.folder.cleanup()

    @rule(lane=st.sampled_from(LANES), hour=st.integers(0, 2), rows=st.integers(1, 12), commit=st.booleans())
    def accept(self, lane: Lane, hour: int, rows: int, commit: bool) -> None:
        self.serial += 1
        body = b"%06d;" % self.serial + b"x" * (rows * 40)
        where = group(lane, f"hour={hour}")
        self.sizes[body] = len(body) + rows * len(where.prefix())
        self.db.execute("BEGIN IMMEDIATE")
        self.spool.add([Portion(where, rows, body)], LIMITS, now=self.now)
        if commit:
            self.db.execute("COMMIT")
            self.open_rows.setdefault(where, []).append(body)
        else:
            self.db.execute("ROLLBACK")

    @rule(secs=st.integers(0, 90))
    def wait(self, secs: int) -> None:
        self.now += secs * SECOND

    @rule(everything=st.booleans(), commit=st.booleans())
    def cut(self, everything: bool, commit: bool) -> None:
        for batch in self.spool.due(LANES, LIMITS, now=self.now, everything=everything):
            cut = self.spool.read_cut(batch, LIMITS)
            if cut is None:
                continue
            self.db.execute("BEGIN IMMEDIATE")
            self.spool.commit_cut(cut, b"".join(cut.bodies), format=JSONL_GZ, destinations=DESTINATIONS)
            if not commit:
                self.db.execute("ROLLBACK")
                continue
            self.db.execute("COMMIT")
            waiting = self.open_rows[cut.group]
            assert waiting[: len(cut.bodies)] == cut.bodies
            del waiting[: len(cut.bodies)]
            earlier = [
                body for where, bodies in self.open_rows.items() if goes_before(where, cut.group) for body in bodies
            ]
            assert max(cut.bodies) < min(earlier, default=b"\xff"), "a record of this or an earlier hour is left behind"
            for name in DESTINATIONS:
                self.owed[name].append((cut.group.lane, tuple(cut.bodies)))

    @precondition(lambda self: any(self.owed.values()))
    @rule(name=st.sampled_from(DESTINATIONS), again=st.booleans(), commit=st.booleans())
    def send(self, name: str, again: bool, commit: bool) -> None:
        delivery = self.spool.next_delivery(name)
        if not self.owed[name]:
            assert delivery is None
            return
        assert delivery is not None
        expected = next((line for line in self.owed[name] if line[0] == "anomalies"), self.owed[name][0])
        assert (delivery.lane, delivery.body) == (expected[0], b"".join(expected[1]))
        key = (delivery.lane, name)
        assert delivery.meta.batch_no == self.numbers.get(key, 0) + 1
        assert delivery.meta.previous_sha256 == self.digests.get(key)
        assert delivery.meta.spool == self.id
        self.db.execute("BEGIN IMMEDIATE")
        self.spool.confirm(delivery.batch_id, name)
        if not commit:
            self.db.execute("ROLLBACK")
            return
        self.db.execute("COMMIT")
        if again:
            self.spool.confirm(delivery.batch_id, name)
        self.owed[name].remove(expected)
        self.numbers[key] = delivery.meta.batch_no
        self.digests[key] = delivery.meta.sha256

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = connect(self.path)
        self.spool = Spool(self.db)
        assert self.spool.id == self.id

    @invariant()
    def owes_what_the_model_owes(self) -> None:
        if not hasattr(self, "spool"):
            return
        backlog = self.spool.backlog()
        for name in DESTINATIONS:
            assert sum(line.batches for line in backlog if line.destination == name) == len(self.owed[name])
        uncut = sum(self.sizes[body] for bodies in self.open_rows.values() for body in bodies)
        assert sum(line.bytes for line in backlog if not line.destination) == uncut
        bodies = {parts for owed in self.owed.values() for _, parts in owed}
        (kept,) = self.db.execute("SELECT COUNT(*) FROM uploader_bodies").fetchone()
        assert kept == len(bodies)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
