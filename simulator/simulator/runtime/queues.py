"""The stored queues: one per (endpoint, priority), first in first out; a message's bytes are stored once.

The order in a queue is the order of message ids, which rise. Lengths are cached for the pumps and for the statistics
and are read again from the file when a transaction fails.
"""

from collections.abc import Iterable

import msgspec

from simulator.runtime.messages import Message
from simulator.runtime.store import Store


class Target(msgspec.Struct, frozen=True):
    """Where one message goes: an endpoint's queue of one priority, and when it stops being worth delivering."""

    endpoint: str
    priority: int
    expires: float | None  # seconds since the epoch; None is never


class Queued(msgspec.Struct, frozen=True):
    """One message at the head of one queue."""

    endpoint: str
    priority: int
    number: int
    expires: float | None
    is_shared: bool  # it stands, or stood, in other queues too
    message: Message


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    source: str
    app: dict[str, str | None]
    system: dict[str, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode


class Queues:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._lengths: dict[str, dict[int, int]] = {}
        self._next = 1
        self._load()
        store.on_rollback(self._load)

    def _load(self) -> None:
        self._lengths = {}
        for endpoint, priority, count in self.store.read(
            "SELECT endpoint, priority, count(*) FROM queued GROUP BY 1, 2"
        ):
            self._lengths.setdefault(endpoint, {})[priority] = count
        # Ids need to rise only while older messages are there, also across a restart.
        self._next = 1 + int(self.store.read("SELECT coalesce(max(id), 0) FROM messages")[0][0])

    @property
    def lengths(self) -> dict[tuple[str, int], int]:
        """Messages per (endpoint, priority), empty queues left out."""
        return {
            (endpoint, priority): count
            for endpoint, by_priority in self._lengths.items()
            for priority, count in by_priority.items()
            if count
        }

    def put(self, message: Message, targets: Iterable[Target]) -> None:
        """Stores the message in every target's queue, in the open transaction. Raises StoreFailed."""
        targets = tuple(targets)
        number, self._next = self._next, self._next + 1
        envelope = _encode(_Envelope(message.source, message.app, message.system))
        self.store.write("INSERT INTO messages VALUES (?, ?, ?, ?)", (number, len(targets), envelope, message.body))
        for target in targets:
            self.store.write(
                "INSERT INTO queued VALUES (?, ?, ?, ?)", (target.endpoint, target.priority, number, target.expires)
            )
            by_priority = self._lengths.setdefault(target.endpoint, {})
            by_priority[target.priority] = by_priority.get(target.priority, 0) + 1

    def first_priority(self, endpoint: str) -> int | None:
        """The lowest number, that is the highest priority, with something in it."""
        by_priority = self._lengths.get(endpoint)
        return min((p for p, count in by_priority.items() if count), default=None) if by_priority else None

    def take(self, endpoint: str, limit: int) -> list[Queued]:
        """The head of the endpoint's most urgent queue; what is returned stays stored until `remove`.

        Commits first: nothing is ever delivered that its sender could still be asked to send again.
        """
        if self.first_priority(endpoint) is None:
            return []
        self.store.flush()
        priority = self.first_priority(endpoint)
        rows = self.store.read(
            "SELECT q.message, q.expires, m.refs, m.envelope, m.body FROM queued q JOIN messages m ON m.id = q.message"
            " WHERE q.endpoint = ? AND q.priority = ? ORDER BY q.message LIMIT ?",
            (endpoint, priority, limit),
        )
        return [
            Queued(endpoint, priority or 0, number, expires, refs > 1, _restore(envelope, body))
            for number, expires, refs, envelope, body in rows
        ]

    def remove(self, entry: Queued) -> None:
        """The entry is done with; the message's bytes go with its last entry."""
        removed = self.store.write(
            "DELETE FROM queued WHERE endpoint = ? AND priority = ? AND message = ?",
            (entry.endpoint, entry.priority, entry.number),
        )
        if not removed:
            return  # it expired, or its queue was dropped, while it was being delivered
        self._lengths[entry.endpoint][entry.priority] -= 1
        if entry.is_shared:
            self.store.write("UPDATE messages SET refs = refs - 1 WHERE id = ?", (entry.number,))
            self.store.write("DELETE FROM messages WHERE id = ? AND refs <= 0", (entry.number,))
        else:
            self.store.write("DELETE FROM messages WHERE id = ?", (entry.number,))

    def remove_expired(self, now: float) -> int:
        """Removes what nobody would deliver any more, of queues without a route too; returns how many entries."""
        return self._remove_where("expires <= ?", (now,))

    def drop_queue(self, endpoint: str, priority: int) -> int:
        """Deletes one queue with what is in it; returns how many entries."""
        return self._remove_where("endpoint = ? AND priority = ?", (endpoint, priority))

    def _remove_where(self, condition: str, parameters: tuple[float, ...] | tuple[str, int]) -> int:
        count = int(self.store.read(f"SELECT count(*) FROM queued WHERE {condition}", parameters)[0][0])
        if count:
            self.store.write(
                "UPDATE messages SET refs = refs - gone.entries FROM"
                f" (SELECT message, count(*) AS entries FROM queued WHERE {condition} GROUP BY message) AS gone"
                " WHERE messages.id = gone.message",
                parameters,
            )
            self.store.write(f"DELETE FROM queued WHERE {condition}", parameters)
            self.store.write("DELETE FROM messages WHERE refs <= 0")
            self._load()
        return count


def _restore(envelope: bytes, body: bytes) -> Message:
    held = _decode(envelope)
    return Message(held.source, held.app, held.system, body)
