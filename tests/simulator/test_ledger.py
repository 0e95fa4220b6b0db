import pytest

from simulator.delivery import Message
from simulator.ledger import Ledger, Sent

ONE, TWO = Message("1", b"{}", ("{}",)), Message("2", b"[]", ())


def ledger() -> Ledger:
    times = iter(range(100))
    return Ledger(clock=lambda: float(next(times)))


def only(found: Ledger) -> Sent:
    (sent,) = found.sent()
    return sent


def test_what_was_acknowledged_is_promised_and_was_there_before_the_call_returned() -> None:
    found = ledger()
    found.acknowledge(found.begin("d", ONE))
    assert (only(found).begun, only(found).deadline) == (1, 2)
    assert found.promised("d") == [ONE]
    assert found.promised("e") == []


def test_what_failed_or_was_cut_off_is_attempted_and_may_come_at_any_time() -> None:
    found = ledger()
    found.fail(found.begin("d", ONE), "no answer")
    found.begin("d", TWO)
    assert [sent.deadline for sent in found.sent()] == [None, None]
    assert found.promised() == []
    assert found.failures == 1


def test_a_later_success_promises_it_from_its_first_attempt_on() -> None:
    found = ledger()
    found.fail(found.begin("d", ONE), "no answer")
    found.acknowledge(found.begin("d", ONE))
    assert (only(found).begun, only(found).deadline) == (1, 4)


def test_a_demoted_acknowledgement_promises_nothing_but_another_one_of_the_same_message_does() -> None:
    found = ledger()
    first = found.begin("d", ONE)
    found.acknowledge(first)
    assert first.ended_at is not None
    found.demote(first.ended_at, first.ended_at)
    assert not only(found).is_promised
    found.acknowledge(found.begin("d", ONE))
    assert (only(found).begun, only(found).deadline) == (1, 4)


def test_an_id_names_one_body_of_a_device() -> None:
    found = ledger()
    found.begin("d", ONE)
    found.begin("e", Message("1", b"other", ()))
    with pytest.raises(ValueError, match="d sends another message 1"):
        found.begin("d", Message("1", b"other", ()))
