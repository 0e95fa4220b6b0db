"""One message from arrival to commit, with a real store and no hub."""

import contextlib
import errno
import sqlite3
from pathlib import Path

import pytest

from contract.messages import Rejected, RejectedPart, decode
from edge_module import Hold, Incoming, Transaction
from edge_module.engine import ATTEMPTS, Done, Engine, Held, StoreLocked
from edge_module.faults import disk_reason, is_out_of_memory
from edge_module.testing import Bench, SimulatedCrash
from tests.edge_module.echo import Echo, EchoSettings


@pytest.fixture
def bench(tmp_path: Path) -> Bench[EchoSettings]:
    return Bench(Echo, tmp_path)


def test_a_message_is_handled_once_and_its_repeat_emits_nothing(bench: Bench[EchoSettings]) -> None:
    assert bench.feed(b"hello", message_id="1").how == "handled"
    repeat = bench.feed(b"hello", message_id="1")
    assert (repeat.how, repeat.emitted) == ("repeat", [])
    assert len(bench.kept) == 1


def test_poison_is_rejected_with_its_bytes_and_leaves_no_other_effect(bench: Bench[EchoSettings]) -> None:
    result = bench.feed(b"poison", message_id="1")
    assert (result.how, result.reason) == ("rejected", "not_json")
    (message,) = result.emitted
    assert message.output == "rejected"
    (part,) = decode(Rejected, message.body).rows
    assert (part.body, part.reason, part.device) == (b"poison", "not_json", "device-1")
    assert bench.method("total") == (200, {"total": 0})


@pytest.mark.parametrize("step", ["seen_checked", "handled", "before_commit", "after_commit"])
def test_a_crash_at_any_step_and_a_redelivery_leave_one_effect(bench: Bench[EchoSettings], step: str) -> None:
    bench.crash_next(step)
    with pytest.raises(SimulatedCrash):
        bench.feed(b"hello", message_id="1")
    bench.restart()
    bench.feed(b"hello", message_id="1")
    assert len(bench.kept) == 1
    assert bench.method("total") == (200, {"total": 1})


def test_a_full_disk_holds_the_message_and_recovers_by_itself(bench: Bench[EchoSettings]) -> None:
    bench.fail_next("before_commit")
    held = bench.feed(b"hello", message_id="1")
    assert (held.how, held.reason) == ("held", "disk_full")
    assert "disk_full" in bench.health.reasons()
    done = bench.feed(b"hello", message_id="1")
    assert (done.how, len(done.emitted)) == ("handled", 1)
    assert bench.health.reasons() == {}
    assert bench.method("total") == (200, {"total": 1})


def test_a_disk_that_is_really_full_holds_input_until_there_is_room(bench: Bench[EchoSettings]) -> None:
    db = bench.engine.store.db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    held = bench.feed(b"x" * 100_000, message_id="1")
    assert (held.how, held.reason) == ("held", "disk_full")
    assert bench.method("total") == (200, {"total": 0})
    db.execute("PRAGMA max_page_count = 1000000")
    assert bench.feed(b"x" * 100_000, message_id="1").how == "handled"
    assert bench.health.reasons() == {}


def test_a_store_that_stays_locked_ends_the_process_and_a_short_lock_does_not(bench: Bench[EchoSettings]) -> None:
    bench.engine.store.db.execute("PRAGMA busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(bench.engine.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert bench.feed(b"hello", message_id="1").reason == "disk_error"
        bench.clock.advance(100)
        bench.tick()
        bench.engine.require_unlocked()
        other.execute("ROLLBACK")
        assert bench.feed(b"hello", message_id="1").how == "handled"
        bench.clock.advance(100)
        bench.engine.require_unlocked()
        other.execute("BEGIN IMMEDIATE")
        bench.tick()
        bench.clock.advance(121)
        bench.tick()
        with pytest.raises(StoreLocked, match="stays locked"):
            bench.engine.require_unlocked()


def test_a_lock_that_was_lost_ends_the_process_also_when_it_is_in_the_way_only_now_and_then(
    bench: Bench[EchoSettings],
) -> None:
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
    bench.fail_next("before_commit", error)
    assert bench.feed(b"hello", message_id="1").reason == "disk_error"
    assert bench.feed(b"hello", message_id="1").how == "handled"
    with pytest.raises(StoreLocked, match="lost"):
        bench.engine.require_unlocked()


def test_a_lock_that_is_released_while_it_is_looked_at_ends_nothing(
    bench: Bench[EchoSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop asks, and the worker thread commits at any moment."""
    bench.engine.store.db.execute("PRAGMA busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(bench.engine.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert bench.feed(b"hello", message_id="1").reason == "disk_error"
    read = bench.clock.monotonic

    def commit_first() -> float:
        monkeypatch.setattr(bench.clock, "monotonic", read)
        bench.tick()
        return read()

    monkeypatch.setattr(bench.clock, "monotonic", commit_first)
    bench.engine.require_unlocked()


def test_a_disk_that_refuses_the_modules_tables_at_first_lets_it_open_later(tmp_path: Path) -> None:
    bench = Bench(Echo, tmp_path)
    db = bench.engine.store.db
    db.execute("DROP TABLE echo_count")
    db.execute("PRAGMA query_only = 1")
    assert isinstance(bench.module, Echo)
    context = bench.module.context
    engine = Engine(
        Echo(),
        bench.engine.store,
        site="site",
        clock=bench.clock,
        metrics=bench.metrics,
        health=bench.health,
        log=context.log,
        reach=context.reach,
    )
    with pytest.raises(sqlite3.OperationalError):
        engine.start(context)
    assert bench.health.reasons().keys() == {"disk_error"}
    db.execute("PRAGMA query_only = 0")
    outcome = engine.apply({"$version": 2})
    assert (outcome.outcome, engine.opened, bench.health.reasons()) == ("accepted", True, {})


def test_a_transaction_that_sqlite_itself_rolls_back_leaves_no_source_behind(bench: Bench[EchoSettings]) -> None:
    db = bench.engine.store.db
    db.execute("CREATE TEMP TRIGGER failing BEFORE INSERT ON seen BEGIN SELECT RAISE(ROLLBACK, 'as a disk does'); END")
    assert bench.feed(b"poison", message_id="1", device="a").how == "held"
    assert not db.in_transaction
    db.execute("DROP TRIGGER failing")
    assert bench.feed(b"x", message_id="1", device="b").how == "handled"
    assert bench.feed(b"x", message_id="2", device="a").how == "handled"
    assert bench.feed(b"x", message_id="2", device="b").how == "handled"


def test_the_same_id_with_another_body_is_another_message_and_is_counted(bench: Bench[EchoSettings]) -> None:
    assert bench.feed(b"a", message_id="1").how == "handled"
    assert bench.feed(b"b", message_id="1").how == "handled"
    assert bench.feed(b"a", message_id="1").how == "repeat"
    assert bench.metrics.value("identity_reused_messages") == 1


def test_without_an_id_the_bytes_identify_a_message_only_when_they_carry_a_timestamp(
    bench: Bench[EchoSettings],
) -> None:
    assert [bench.feed(b'{"t": 1}').how for _ in range(2)] == ["handled", "repeat"]
    assert [bench.feed(b"{}").how for _ in range(2)] == ["handled", "handled"]
    assert bench.metrics.value("identity_none_messages") == 2


def test_a_full_outbox_holds_input_until_it_shrinks(tmp_path: Path) -> None:
    bench = Bench(Echo, tmp_path, outbox_limit_bytes=100)
    while (result := bench.feed(b"x" * 50, message_id=str(len(bench.kept)))).how == "handled":
        pass
    assert (result.how, result.reason) == ("held", "outbox_full")
    bench.acknowledge_published()
    assert bench.feed(b"x" * 50, message_id="again").how == "handled"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        OSError(errno.ENOMEM, "no"),
        type("Fail", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"})(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 1"
        ),
    ],
)
def test_without_memory_a_message_is_held_and_not_rejected(bench: Bench[EchoSettings], error: Exception) -> None:
    for _ in range(ATTEMPTS + 1):
        bench.fail_next("handled", error)
        held = bench.feed(b"hello", message_id="1")
        assert (held.how, held.reason) == ("held", "out_of_memory")
    bench.fail_next("before_commit", error)
    assert bench.feed(b"poison", message_id="2").how == "held"
    assert bench.feed(b"hello", message_id="1").how == "handled"
    assert bench.feed(b"poison", message_id="2").how == "rejected"


def test_an_error_that_quotes_a_message_about_memory_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(ValueError("'Failed to allocate memory' is no number"))


def test_a_disk_that_fails_is_told_from_other_errors_of_the_operating_system() -> None:
    assert disk_reason(OSError(errno.EDQUOT, "")) == "disk_full"
    assert disk_reason(OSError(errno.EROFS, "")) == "disk_error"
    assert disk_reason(sqlite3.OperationalError("no such table")) is None
    for error in (FileNotFoundError(errno.ENOENT, ""), ConnectionResetError(errno.ECONNRESET, ""), TimeoutError()):
        assert disk_reason(error) is None


def test_an_operating_system_error_of_the_modules_own_is_tried_three_times_and_then_rejected(
    bench: Bench[EchoSettings],
) -> None:
    outcomes = []
    for _ in range(ATTEMPTS):
        bench.fail_next("handled", FileNotFoundError(errno.ENOENT, "gone"))
        outcomes.append(bench.engine.process(Incoming("in", b"x", message_id="1")))
    assert [type(outcome).__name__ for outcome in outcomes] == ["Held", "Held", "Done"]
    assert outcomes[-1] == Done("rejected", "internal_error")


def test_the_attempts_of_a_message_are_its_own(bench: Bench[EchoSettings]) -> None:
    def attempt(message_id: str, body: bytes = b"bug") -> Done | Held:
        return bench.engine.process(Incoming("in", body, message_id=message_id))

    assert isinstance(attempt("1"), Held)
    assert isinstance(attempt("1"), Held)
    assert attempt("2", b"fine") == Done("handled")
    assert attempt("1") == Done("rejected", "internal_error")
    assert isinstance(attempt("3"), Held)


def test_a_hold_while_rejected_bytes_are_stored_is_a_hold(tmp_path: Path) -> None:
    class Full(Echo):
        is_full = True

        def store_rejected(self, parts: list[RejectedPart], tx: Transaction) -> None:
            if self.is_full:
                raise Hold("spool_full", "no room")

    bench = Bench(Full, tmp_path)
    held = bench.feed(b"poison", message_id="1")
    assert (held.how, held.reason, held.detail) == ("held", "spool_full", "no room")
    Full.is_full = False
    assert bench.feed(b"poison", message_id="1").how == "rejected"


def test_a_failing_module_is_tried_three_times_and_then_the_bytes_are_rejected(bench: Bench[EchoSettings]) -> None:
    result = bench.feed(b"bug", message_id="1")
    assert (result.how, result.reason) == ("rejected", "internal_error")
    (part,) = decode(Rejected, result.emitted[0].body).rows
    assert (part.body, part.detail) == (b"bug", "ZeroDivisionError: a bug")
    assert bench.method("total") == (200, {"total": 0})
    assert bench.feed(b"bug", message_id="1").how == "repeat"


def test_an_input_that_the_module_does_not_have_is_rejected(bench: Bench[EchoSettings]) -> None:
    assert bench.feed(b"x", input="other", message_id="1").reason == "wrong_input"


def test_a_large_poison_travels_in_parts_that_join_to_the_original_bytes(bench: Bench[EchoSettings]) -> None:
    body = b"poison" * 60_000
    result = bench.feed(body, input="other", message_id="1")
    parts = [part for message in result.emitted for part in decode(Rejected, message.body).rows]
    assert len(parts) == 3
    assert b"".join(part.body for part in parts) == body


def test_settings_that_are_refused_leave_the_old_ones_also_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(Echo, tmp_path, settings={"copies": 3})
    assert bench.set_settings({"copies": 99}).path == "$.copies"
    assert bench.set_settings({"copies": 1, "forbidden": "no"}).path == "$.forbidden"
    bench.restart()
    assert len(bench.feed(b"a", message_id="1").emitted) == 3


def test_a_module_refused_its_first_settings_starts_with_the_defaults(tmp_path: Path) -> None:
    bench = Bench(Echo, tmp_path, settings={"copies": "many"})
    assert bench.started_with is not None
    assert bench.started_with.outcome == "refused"
    assert len(bench.feed(b"a", message_id="1").emitted) == 1


def test_after_a_reboot_everything_still_kept_is_unsent_again(bench: Bench[EchoSettings]) -> None:
    bench.feed(b"a", message_id="1")
    bench.acknowledge_published()
    bench.tick()
    bench.restart()
    assert bench.engine.store.outbox.unsent_rows == 0
    bench.restart(reboot=True)
    assert bench.engine.store.outbox.unsent_rows == 1
    assert bench.engine.store.outbox.unsent(0, rows=9, size=9)[0].n == 1


def test_published_messages_are_kept_for_two_minutes_and_then_deleted(bench: Bench[EchoSettings]) -> None:
    bench.feed(b"a", message_id="1")
    bench.acknowledge_published()
    bench.tick()
    bench.tick(118)
    assert len(bench.kept) == 1
    bench.tick(3)
    assert bench.kept == []
    assert bench.feed(b"b", message_id="2").emitted[0].n == 2


def test_a_method_answers_with_its_status(bench: Bench[EchoSettings]) -> None:
    assert bench.method("fail", 7) == (418, {"error": "told to fail with 7"})
    assert bench.method("unknown")[0] == 404


def test_holes_in_a_peers_numbers_are_losses_until_they_are_found(bench: Bench[EchoSettings]) -> None:
    def feed(number: int, epoch: str = "e1") -> None:
        properties = {"epoch": epoch, "n": str(number), "output": "scores"}
        bench.feed(b"x", module="scorer", message_id=f"{epoch}-{number}", properties=properties)

    peers = bench.engine.store.peers
    feed(10)  # this store is younger than the sender
    feed(11)
    assert peers.losses() == []
    feed(14)
    (loss,) = peers.losses()
    assert (loss.first, loss.last, loss.missing) == (12, 13, 2)
    feed(12)
    assert peers.losses()[0].missing == 1
    feed(13)
    assert peers.losses() == []
    feed(2, "e2")  # a new store of the sender begins at 1
    assert [(lost.epoch, lost.first, lost.last) for lost in peers.losses()] == [("e2", 1, 1)]
    assert bench.metrics.value("lost_messages") == 3
