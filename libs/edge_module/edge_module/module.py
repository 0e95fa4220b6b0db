"""What a module is, and what it is given.

The promise that these types exist for: **an input message is acknowledged only after its effect is safe.** Everything
`handle` does through its transaction (rows in the module's tables, emitted messages, rejected bytes, counters) becomes
durable together with the identity of the message, or not at all.

`open`, `configure`, `handle`, `tick`, `rollback`, `methods` and `status` are called from one worker thread that owns
the SQLite connection, never two at once. `background` runs in the event loop beside it.
"""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import msgspec

from contract.messages import RejectedPart
from edge_module.clock import Clock
from edge_module.health import Health
from edge_module.kill_points import Reach
from edge_module.metrics import Metrics
from edge_module.transaction import Transaction

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class Incoming(msgspec.Struct, frozen=True):
    """One input message. `module` is "" when a leaf device sent it; `created` is the sender's `$.ctime`."""

    input: str
    body: bytes
    properties: Mapping[str, str] = {}
    device: str = ""
    module: str = ""
    message_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    created: str | None = None


class Transact(Protocol):
    """Run an effect in a transaction of its own on the worker thread, between two messages; its result comes back
    after the commit. When it raises, nothing of it remains."""

    def __call__(self, effect: Callable[[Transaction], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a module may use of its surroundings. It lives as long as the process."""

    site: str
    device: str
    config_dir: Path  # read-only mounted files; file references in twins are relative to it
    state_dir: Path  # the one writable folder
    id_key: bytes  # this store's secret for contract.identity.keyed_id
    log: logging.Logger
    metrics: Metrics
    health: Health
    clock: Clock
    transact: Transact
    report: Callable[[Mapping[str, object]], None]  # merge into the reported properties, from any thread
    retry_held: Callable[[], None]  # try held messages again now, from any thread
    reach: Reach  # pass a kill point (edge_module.kill_points)


class Module(Protocol[S]):
    """Subclass it (`class Scorer(Module[Settings])`) to inherit the methods that do nothing."""

    name: ClassVar[str]
    settings_type: type[S]
    inputs: frozenset[str]
    schema: str

    def open(self, db: sqlite3.Connection, settings: S, context: Context) -> None:
        """Load state from disk. `schema` (idempotent SQL) has been executed; writes are committed afterwards.

        Called once, when the first settings are known: the last good ones from disk, or the twin's.
        """
        ...

    def configure(self, settings: S) -> None:
        """Take new settings, between two messages. Raise Refused to keep the old ones, having changed nothing."""
        ...

    def has_timestamp(self, body: bytes) -> bool:
        """Whether the body carries a timestamp, so that its bytes identify it. Asked when a message has no id."""
        return False

    def handle(self, message: Incoming, tx: Transaction) -> None:
        """Do all that the message asks for, through `tx`. Raise Poison or Hold to say that it cannot be done."""
        ...

    def tick(self, tx: Transaction) -> None:
        """About once a second, between messages, in a transaction of its own."""
        return

    def rollback(self) -> None:
        """The transaction did not commit: forget every change made in memory since the last commit."""
        return

    def methods(self) -> Mapping[str, Callable[[object], object]]:
        """Direct methods: name to a function of the JSON payload. Raise MethodError for another status than 200."""
        return {}

    def status(self) -> Mapping[str, object]:
        """Reported properties of its own: small, and no names from outside as keys."""
        return {}

    async def background(self) -> None:
        """Work beside the data path (senders, watchers), in the event loop. Cancelled at stop; may return early."""
        return


@runtime_checkable
class StoresRejected(Protocol):
    """A module without outputs keeps rejected parts itself, in the same transaction."""

    def store_rejected(self, parts: list[RejectedPart], tx: Transaction) -> None: ...
