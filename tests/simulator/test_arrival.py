"""Which orders of arrival storage and ledger allow together. A row is `message.i@hour`; those of series b have a b."""

from collections.abc import Sequence

from simulator.arrival import find_arrival
from simulator.delivery import Message
from simulator.ledger import Sent
from simulator.stored import LaneRows

PROMISED = [(1, 2), (3, 4), (5, 6), (7, 8)]


def arrival(sent: Sequence[tuple[int, int | None]], *spools: str) -> tuple[str, int]:
    """Messages are named 1, 2, 3, … in the order of `sent`; the order found, and how many are misplaced."""
    messages = [
        Sent("d", Message(str(name), b"", ()), begun, 0.0, deadline)
        for name, (begun, deadline) in enumerate(sent, start=1)
    ]
    found = find_arrival(messages, [rows(f"{number:02x}", text) for number, text in enumerate(spools)])
    return "".join(each.message.message_id for each in found.order), len(found.misplaced)


def rows(spool: str, text: str) -> LaneRows:
    found = []
    for row in text.split():
        name, _, hour = row.partition("@")
        message, _, i = name.partition(".")
        series = "b" if message.endswith("b") else "a"
        identity = {"device": "d", "series": series, "message": message.rstrip("b"), "i": i or "0"}
        found.append((f"date=2026-11-23/hour={hour or '18'}", identity))
    return LaneRows("readings", spool, found)


def test_promised_messages_arrive_in_the_order_of_sending() -> None:
    assert arrival(PROMISED, "1 2 3 4") == ("1234", 0)
    assert arrival(PROMISED, "1 3 2 4") == ("1324", 1)


def test_an_attempted_message_may_arrive_at_any_time_after_its_first_attempt() -> None:
    attempted = [(1, 2), (3, None), (5, 6), (7, 8)]
    assert arrival(attempted, "1 2 3 4") == ("1234", 0)
    assert arrival(attempted, "1 3 4 2") == ("1342", 0)
    assert arrival(attempted, "2 1 3 4") == ("2134", 1)


def test_rows_of_a_message_stand_in_their_order_and_with_no_other_between_them() -> None:
    assert arrival(PROMISED[:2], "1.0 1.1 2.0 2.1") == ("12", 0)
    assert arrival(PROMISED[:2], "1.1 1.0 2.0 2.1")[1] == 1
    assert arrival([(1, None), (3, None)], "1.0 2.0 1.1 2.1")[1] == 1


def test_an_hour_before_is_stored_before() -> None:
    assert arrival(PROMISED, "1@18 2@18 3@19 4@19") == ("1234", 0)
    assert arrival(PROMISED, "3@19 4@19 1@18 2@18")[1] >= 1


def test_what_comes_late_for_an_earlier_hour_may_stand_before_or_behind() -> None:
    assert arrival(PROMISED, "1@18 3@18 2@19 4@19") == ("1234", 0)
    assert arrival(PROMISED, "1@18 2@19 3@18 4@19") == ("1234", 0)
    # But it came before 4, which lies in a later hour.
    assert arrival(PROMISED, "1@18 2@19 4@19 3@18")[1] == 1


def test_two_series_that_contradict_each_other_are_out_of_order() -> None:
    attempted = [(1, None), (3, None)]
    assert arrival(attempted, "1.0 2.0 1b.1 2b.1") == ("12", 0)
    assert arrival(attempted, "1.0 2.0 2b.1 1b.1")[1] == 1


def test_a_spool_that_was_replaced_stands_before_the_new_one_whatever_their_names() -> None:
    assert arrival([(1, 2), (3, 4), (5, None), (7, 8)], "4 3", "1 2") == ("1243", 0)


def test_what_is_stored_twice_counts_where_it_stands_first() -> None:
    assert arrival(PROMISED, "1 2 1 3 4") == ("1234", 0)
