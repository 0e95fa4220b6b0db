"""The order of acknowledgements on one connection. Pure.

edgeHub gives every packet it publishes the id 1, and a PUBACK completes the oldest unacknowledged packet of the
connection: input, twin or method alike. So acknowledgements go out strictly in the order of arrival, one for each
packet, and an early one would confirm another message than it means.

Invariants
- The PUBACKs sent are always those of a leading run of the packets that arrived.
- Each ticket is acknowledged at most once, and only after it was completed.
- After `void` nothing is acknowledged any more: the packets of a dead connection are not those of the next one.
"""

from collections import deque


class Ticket:
    """One packet's place in the order. `mid` is its packet id."""

    __slots__ = ("completed", "mid")

    def __init__(self, mid: int) -> None:
        self.mid = mid
        self.completed = False


class AckQueue:
    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._is_void = False

    def __len__(self) -> int:
        return len(self._waiting)

    def arrive(self, mid: int) -> Ticket:
        ticket = Ticket(mid)
        if not self._is_void:
            self._waiting.append(ticket)
        return ticket

    def complete(self, ticket: Ticket) -> list[int]:
        """The packet ids to acknowledge now, in order. Completing a ticket again changes nothing."""
        ticket.completed = True
        ready: list[int] = []
        while self._waiting and self._waiting[0].completed:
            ready.append(self._waiting.popleft().mid)
        return ready

    def void(self) -> None:
        self._is_void = True
        self._waiting.clear()
