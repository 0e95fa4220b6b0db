"""How readings are put into messages, and what goes wrong on their way: repeats, lateness, clocks that jump.

Pure: a plan of messages from a seed and a stream of readings. A message is an array of readings, or one object when
it holds just one; its id is the device's own count, as firmware does it.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol


class Row(Protocol):
    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Message:
    """What one send call sends. `texts` are the rows' own JSON texts in order; none of them when it is poison."""

    message_id: str
    body: bytes
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Mishaps:
    """Shares of messages, 0 to 1: sent a second time; held back and sent after up to `late_by` later ones."""

    repeated: float = 0.0
    late: float = 0.0
    late_by: int = 5


def into_messages(rows: Iterable[Row], *, device: str, rows_per_message: int, prefix: str = "") -> Iterator[Message]:
    iterator = iter(rows)
    number = 0
    while texts := tuple(row.text for row in islice(iterator, rows_per_message)):
        number += 1
        body = texts[0] if rows_per_message == 1 else "[" + ",".join(texts) + "]"
        yield Message(f"{prefix}{device}-{number}", body.encode(), texts)


def with_mishaps(messages: Iterable[Message], mishaps: Mishaps, rng: random.Random) -> Iterator[Message]:
    """The order in which messages are sent. A repeat is the same message, id and body, sent again right away."""
    held: list[tuple[int, Message]] = []
    for number, message in enumerate(messages):
        if rng.random() < mishaps.late:
            held.append((number + rng.randint(1, mishaps.late_by), message))
        else:
            yield message
            if rng.random() < mishaps.repeated:
                yield message
        due = [late for release, late in held if release <= number]
        held = [(release, late) for release, late in held if release > number]
        yield from due
    for _, message in held:
        yield message
