"""Seen identities, outbox and the module's own table against a simple model, with rollbacks and reopening."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.identity import InputIdentity, body_digest
from edge_module import seen as seen_module
from edge_module.outbox import KEEP_PUBLISHED_SECS
from edge_module.publisher import continuing
from edge_module.seen import KEEP_MESSAGES
from edge_module.store import Store, StoreFromTheFuture
from edge_module.testing import Bench, ManualClock, SimulatedCrash
from tests.edge_module.echo import Echo, EchoSettings

_MESSAGES = st.tuples(
    st.sampled_from(["d1", "d2"]), st.sampled_from(["1", "2", None]), st.sampled_from([b'{"t"', b"x"])
)


class OneEffectPerIdentity(RuleBasedStateMachine):
    """The model: identities with an effect, how often, and what was emitted."""

    @initialize()
    def start(self) -> None:
        # Hypothesis runs many examples per test, so the fixture's folder would be shared.
        self.folder = Path(_folders.pop_new())
        self.bench: Bench[EchoSettings] = Bench(Echo, self.folder)
        self.effects = 0
        self.known: set[tuple[str, str | None, bytes]] = set()

    def _is_new(self, message: tuple[str, str | None, bytes]) -> bool:
        has_identity = message[1] is not None or b'"t"' in message[2]
        return not (has_identity and message in self.known)

    def _took_effect(self, message: tuple[str, str | None, bytes]) -> None:
        self.known.add(message)
        self.effects += 1

    @rule(message=_MESSAGES)
    def feed(self, message: tuple[str, str | None, bytes]) -> None:
        device, message_id, body = message
        result = self.bench.feed(body, device=device, message_id=message_id)
        assert result.how == ("handled" if self._is_new(message) else "repeat")
        if result.how == "handled":
            self._took_effect(message)

    @rule(message=_MESSAGES, step=st.sampled_from(["handled", "before_commit"]))
    def fail(self, message: tuple[str, str | None, bytes], step: str) -> None:
        device, message_id, body = message
        self.bench.fail_next(step)
        result = self.bench.feed(body, device=device, message_id=message_id)
        assert result.how == ("held" if self._is_new(message) else "repeat")
        if result.how == "repeat":
            self.bench.restart()  # the failure was not reached

    @rule(message=_MESSAGES, step=st.sampled_from(["handled", "before_commit", "after_commit"]))
    def crash(self, message: tuple[str, str | None, bytes], step: str) -> None:
        if self._is_new(message):
            device, message_id, body = message
            self.bench.crash_next(step)
            with pytest.raises(SimulatedCrash):
                self.bench.feed(body, device=device, message_id=message_id)
            if step == "after_commit":
                self._took_effect(message)
        self.bench.restart()

    @rule()
    def acknowledge(self) -> None:
        self.bench.acknowledge_published()

    @rule(secs=st.sampled_from([1.0, KEEP_PUBLISHED_SECS + 1]))
    def tick(self, secs: float) -> None:
        self.bench.tick(secs)

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:
        kept = len(self.bench.kept)
        self.bench.restart(reboot=reboot)
        if reboot:
            assert self.bench.engine.store.outbox.unsent_rows == kept

    @invariant()
    def every_effect_is_there_once(self) -> None:
        if not hasattr(self, "bench"):
            return
        assert self.bench.method("total") == (200, {"total": self.effects})
        numbers = [message.n for message in self.bench.kept]
        assert numbers == list(range(self.effects - len(numbers) + 1, self.effects + 1))
        outbox = self.bench.engine.store.outbox
        assert outbox.unsent_rows == len(outbox.unsent(0, rows=10_000, size=1 << 40))
        assert outbox.unsent_bytes == sum(len(m.body) for m in outbox.unsent(0, rows=10_000, size=1 << 40))
        # What a publisher that starts now would send: everything unacknowledged, and nothing is missing before it.
        unsent = outbox.unsent(0, rows=10_000, size=1 << 40)
        assert continuing(outbox.acked_upto, unsent) == (unsent, [])
        assert outbox.last_seq == self.effects

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.close()


class _Folders:
    def __init__(self) -> None:
        self.base: Path | None = None
        self.count = 0

    def pop_new(self) -> Path:
        assert self.base is not None
        self.count += 1
        folder = self.base / str(self.count)
        folder.mkdir()
        return folder


_folders = _Folders()


def test_every_identity_has_one_effect_through_failures_crashes_and_reboots(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    _folders.base = tmp_path
    run_state_machine_as_test(
        OneEffectPerIdentity, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "s.db", clock=ManualClock(), boot_id="b")
    yield store
    store.close()


def _see(store: Store, numbers: range, device: str = "d") -> None:
    store.begin()
    for number in numbers:
        store.seen.record("in", _identity(number, device), store.running_secs())
    store.commit()


def _identity(number: int, device: str = "d") -> InputIdentity:
    return InputIdentity(device, "", str(number), body_digest(b""))


def test_the_last_4096_identities_of_a_source_are_kept_and_older_ones_go(store: Store) -> None:
    clock = store._clock
    assert isinstance(clock, ManualClock)
    for start in range(0, 5000, 100):
        _see(store, range(start, start + 100))
        clock.advance(61)
    store.begin()
    store.maintain()
    store.commit()
    assert store.seen.check("in", _identity(5000 - KEEP_MESSAGES)) == "repeat"
    assert store.seen.check("in", _identity(0)) == "new"


def test_ten_minutes_at_the_highest_rate_are_kept_when_that_is_more(store: Store) -> None:
    _see(store, range(6000))
    store.begin()
    store.maintain()
    store.commit()
    assert store.seen.check("in", _identity(0)) == "repeat"


def test_a_jump_of_the_wall_clock_forgets_nothing(store: Store) -> None:
    _see(store, range(10))
    assert isinstance(store._clock, ManualClock)
    store._clock.jump(10 * 365 * 86_400)
    store.begin()
    assert store.maintain() == 0
    store.commit()
    assert store.seen.check("in", _identity(0)) == "repeat"


def test_a_source_unseen_for_30_days_of_running_time_is_evicted_and_counted(store: Store) -> None:
    _see(store, range(3), device="old")
    assert isinstance(store._clock, ManualClock)
    store._clock.advance(seen_module.EVICT_AFTER_SECS + 1)
    _see(store, range(3), device="new")
    store.begin()
    assert store.maintain() == 1
    store.commit()
    assert store.seen.check("in", _identity(0, "old")) == "new"
    assert store.seen.check("in", _identity(0, "new")) == "repeat"


def test_the_store_syncs_every_commit_and_is_made_with_random_names(tmp_path: Path, store: Store) -> None:
    assert store.db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other = Store(tmp_path / "other.db", clock=ManualClock(), boot_id="b")
    assert (store.epoch, store.id_key) != (other.epoch, other.id_key)
    again = Store(tmp_path / "s.db", clock=ManualClock(), boot_id="b")
    assert (store.epoch, store.id_key) == (again.epoch, again.id_key)
    for opened in (store, other, again):
        opened.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path, store: Store) -> None:
    store.db.execute("UPDATE meta SET value = x'3939' WHERE name = 'schema_version'")
    store.close()
    with pytest.raises(StoreFromTheFuture, match="99"):
        Store(tmp_path / "s.db", clock=ManualClock(), boot_id="b")


def test_a_file_that_is_no_database_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store(tmp_path / "s.db", clock=ManualClock(), boot_id="b")
