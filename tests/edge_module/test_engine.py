"""One message from arrival to commit, with a real store and no hub."""

from pathlib import Path

import pytest

from contract.messages import Rejected, decode
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
