"""What devices tried to send, and what their hub promised to keep.

A message is *promised* once one of its SDK calls has succeeded, *attempted* when it was tried and none has, and else
never sent. A promised message is to be stored exactly once, an attempted one at most once, whole or not at all.

When it arrived is known as an interval: after its first attempt began, and, when it is promised, before the first
successful call returned. An attempted one has no end: a call that failed, or was given up, may still be delivered by
the SDK at any later time, also behind messages that were sent after it.

Beginnings and ends are numbered as they happen, so that which came first is never a question of clock resolution. Times
are kept beside them, on the clock of asyncio's loops, for `demote`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.delivery import Message


@dataclass
class Attempt:
    """One SDK call. While it is neither acknowledged nor failed it was cut off, or is still under way."""

    device: str
    message: Message
    begun: int
    began_at: float
    ended: int | None = None
    ended_at: float | None = None
    acknowledged: bool = False
    reason: str = ""
    """Why it failed, in words."""


@dataclass(frozen=True)
class Sent:
    """One message over all its attempts. `begun` and `deadline` are numbers of the ledger; promised with a deadline."""

    device: str
    message: Message
    begun: int
    began_at: float
    deadline: int | None = None

    @property
    def is_promised(self) -> bool:
        return self.deadline is not None


@dataclass
class Ledger:
    """Of any number of devices. A device's message id names one body: the oracle could not tell two apart."""

    clock: Callable[[], float] = time.monotonic
    attempts: list[Attempt] = field(default_factory=list)
    demoted: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._count = 0
        self._bodies: dict[tuple[str, str], bytes] = {}

    def begin(self, device: str, message: Message) -> Attempt:
        """Raises ValueError for an id that the device has used for another body."""
        if self._bodies.setdefault((device, message.message_id), message.body) != message.body:
            raise ValueError(f"{device} sends another message {message.message_id}")
        attempt = Attempt(device, message, self._next(), self.clock())
        self.attempts.append(attempt)
        return attempt

    def acknowledge(self, attempt: Attempt) -> None:
        attempt.ended, attempt.ended_at, attempt.acknowledged = self._next(), self.clock(), True

    def fail(self, attempt: Attempt, reason: str) -> None:
        attempt.ended, attempt.ended_at, attempt.reason = self._next(), self.clock(), reason

    def demote(self, since: float, until: float) -> None:
        """What was acknowledged within these times is attempted: its hub lost power before it had synced."""
        self.demoted.append((since, until))

    @property
    def failures(self) -> int:
        """Attempts that ended in an error."""
        return sum(attempt.ended is not None and not attempt.acknowledged for attempt in self.attempts)

    def sent(self) -> list[Sent]:
        """Every message that was tried, in the order of their first attempts."""
        found: dict[tuple[str, str], Sent] = {}
        for attempt in self.attempts:
            key = (attempt.device, attempt.message.message_id)
            before = found.get(key) or Sent(attempt.device, attempt.message, attempt.begun, attempt.began_at)
            deadline = attempt.ended if before.deadline is None and self._holds(attempt) else before.deadline
            found[key] = Sent(before.device, before.message, before.begun, before.began_at, deadline)
        return list(found.values())

    def promised(self, device: str | None = None) -> list[Message]:
        """The promised messages, of one device or of all."""
        return [sent.message for sent in self.sent() if sent.is_promised and device in (None, sent.device)]

    def _holds(self, attempt: Attempt) -> bool:
        at = attempt.ended_at
        if not attempt.acknowledged or at is None:
            return False
        return not any(since <= at <= until for since, until in self.demoted)

    def _next(self) -> int:
        self._count += 1
        return self._count
