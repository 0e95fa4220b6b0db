import json
import random
from dataclasses import dataclass
from itertools import pairwise

from simulator.delivery import Message, Mishaps, into_messages, with_mishaps


@dataclass(frozen=True)
class Row:
    text: str


ROWS = [Row(json.dumps({"n": number})) for number in range(10)]


def messages(count: int = 200) -> list[Message]:
    rows = [Row(json.dumps({"n": number})) for number in range(count)]
    return list(into_messages(rows, device="d", rows_per_message=1))


def test_rows_travel_in_arrays_under_counted_ids() -> None:
    sent = list(into_messages(ROWS, device="d", rows_per_message=4))
    assert [message.message_id for message in sent] == ["d-1", "d-2", "d-3"]
    assert [len(json.loads(message.body)) for message in sent] == [4, 4, 2]
    assert [text for message in sent for text in message.texts] == [row.text for row in ROWS]


def test_a_single_row_travels_as_an_object() -> None:
    sent = list(into_messages(ROWS, device="d", rows_per_message=1, prefix="run-"))
    assert sent[3] == Message("run-d-4", b'{"n": 3}', ('{"n": 3}',))


def test_without_mishaps_nothing_changes() -> None:
    assert list(with_mishaps(messages(), Mishaps(), random.Random(1))) == messages()


def test_a_repeat_is_the_same_message_right_behind_itself() -> None:
    sent = list(with_mishaps(messages(), Mishaps(repeated=0.3), random.Random(1)))
    assert list(dict.fromkeys(sent)) == messages()
    repeats = [(a, b) for a, b in pairwise(sent) if a == b]
    assert len(repeats) == len(sent) - len(messages()) > 20


def test_late_messages_come_once_and_not_later_than_allowed() -> None:
    sent = list(with_mishaps(messages(), Mishaps(late=0.2, late_by=5), random.Random(1)))
    assert sorted(sent, key=lambda m: m.message_id) == sorted(messages(), key=lambda m: m.message_id)
    assert sent != messages()
    delays = [sent.index(message) - place for place, message in enumerate(messages())]
    assert max(delays) <= 10


def test_the_same_seed_is_the_same_delivery() -> None:
    mishaps = Mishaps(repeated=0.1, late=0.1)
    first = list(with_mishaps(messages(), mishaps, random.Random(3)))
    assert first == list(with_mishaps(messages(), mishaps, random.Random(3)))
