"""One transaction: what a module's effect is written through.

Invariants
- Rows in `db`, emitted messages, rejected parts and counters become durable together, or not at all.
- An emitted message's bytes, number and id are fixed here, before it is ever published.
- Counters and `on_commit` calls happen only after the commit.
"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from contract.identity import body_digest, keyed_id
from contract.limits import BODY_LIMIT_BYTES
from contract.messages import RejectedPart, Source, reject
from edge_module.errors import TooLarge

if TYPE_CHECKING:
    from edge_module.module import Incoming

# Topic, percent-encoding and system properties need room beside the body; application properties may take this much.
PROPERTIES_LIMIT_BYTES = 4096


class Outbox(Protocol):
    def append(self, output: str, body: bytes, properties: Mapping[str, str]) -> None: ...


class Transaction:
    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        site: str,
        id_key: bytes,
        outbox: Outbox,
        message: "Incoming | None" = None,
        received: str = "",
    ) -> None:
        self.db = db
        self.site = site
        self.id_key = id_key
        self.rejected: list[RejectedPart] = []
        self.counts: list[tuple[str, int, dict[str, str]]] = []
        self.after_commit: list[Callable[[], None]] = []
        self._outbox = outbox
        self.message = message
        self._received = received
        self._source: Source | None = None

    def emit(self, output: str, body: bytes, properties: Mapping[str, str] | None = None) -> None:
        """Put a message into the durable outbox. Raises TooLarge; split before."""
        properties = properties or {}
        if len(body) > BODY_LIMIT_BYTES:
            raise TooLarge(f"a body for output {output}", len(body), BODY_LIMIT_BYTES)
        size = sum(len(key.encode()) + len(value.encode()) for key, value in properties.items())
        if size > PROPERTIES_LIMIT_BYTES:
            raise TooLarge(f"the properties for output {output}", size, PROPERTIES_LIMIT_BYTES)
        self._outbox.append(output, body, properties)

    def reject(self, body: bytes, *, reason: str, detail: str, i: int | None = None) -> None:
        """Send bytes of the current input to the rejected lane; `i` is the index of one bad row."""
        message = self._current()
        self.rejected.extend(
            reject(
                body,
                reason=reason,
                detail=detail,
                source=self.source(),
                input_name=message.input,
                received=self._received,
                i=i,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
            )
        )

    def source(self) -> Source:
        """Where the current input came from. A message without an id is named by a keyed hash of its body."""
        if self._source is None:
            message = self._current()
            name = message.message_id
            if name is None:
                name = keyed_id(self.id_key, b"body", body_digest(message.body))
            self._source = Source(message.device, message.module, name, message.created)
        return self._source

    def count(self, name: str, value: int = 1, **labels: str) -> None:
        """Add to the counter `edgeweir_<module>_<name>_total`, after the commit."""
        self.counts.append((name, value, labels))

    def on_commit(self, call: Callable[[], None]) -> None:
        """Call it, on the worker thread, once the transaction is durable."""
        self.after_commit.append(call)

    def _current(self) -> "Incoming":
        if self.message is None:
            raise RuntimeError("there is no current input outside handle()")
        return self.message
