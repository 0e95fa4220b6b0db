"""One message from arrival to commit. Synchronous: no socket, no task, no sleep; the pump is the shell around it.

Invariants
- `process` answers Done only when every effect of the message and its identity are committed, or were before.
- Whatever raises, the transaction is undone and the module told (`rollback`) before anything else happens.
- A message that can never succeed ends in the rejected lane with its bytes. What the disk refuses or memory does not
  allow is held instead. An unknown error is tried again, ATTEMPTS times in all, with the pump's pause in between.
- `outgoing` receives committed messages in the order of their commits.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, Literal, TypeVar

import msgspec

from contract.identity import InputIdentity, body_digest
from contract.messages import Rejected, chunk_by_size, encode
from contract.timestamps import format_timestamp
from edge_module import settings as settings_reader
from edge_module.clock import Clock
from edge_module.errors import Hold, MethodError, Poison, Refused
from edge_module.faults import disk_reason, is_lock_lost, is_locked, is_out_of_memory
from edge_module.health import Health
from edge_module.kill_points import Reach
from edge_module.log import PRIVATE
from edge_module.metrics import Metrics
from edge_module.module import Context, Incoming, Module, StoresRejected
from edge_module.outbox import KEEP_PUBLISHED_SECS, OutboxMessage
from edge_module.store import Store
from edge_module.transaction import Transaction

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

ATTEMPTS = 3
OUTBOX_LIMIT_BYTES = 256 * 1024 * 1024
_REJECTED_OVERHEAD_BYTES = 4096
_LOCKED_SECS = 120.0
# However time is scaled for tests, SQLite itself waits this long for a lock before it says so.
_LOCKED_AT_LEAST_SECS = 6.0


class Done(msgspec.Struct, frozen=True):
    """The message may be acknowledged."""

    how: Literal["handled", "repeat", "rejected"]
    reason: str = ""


class Held(msgspec.Struct, frozen=True):
    """The message must not be acknowledged; try it again later. `attempt` counts failures for an unknown reason."""

    reason: str
    detail: str = ""
    attempt: int = 0


class StoreLocked(Exception):
    """The store's lock cannot be had, for so long that only another process may get it."""


class _Failing(msgspec.Struct, frozen=True):
    """The message that failed last for an unknown reason, and how often."""

    input: str
    device: str
    module: str
    message_id: str | None
    digest: bytes


class SettingsOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a desired document, as it is reported."""

    outcome: Literal["accepted", "refused"]
    version: int | None = None
    path: str | None = None
    reason: str | None = None
    unknown: tuple[str, ...] = ()


class Engine(Generic[S]):
    """All methods are called on the thread that owns the store."""

    def __init__(
        self,
        module: Module[S],
        store: Store,
        *,
        site: str,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        log: logging.Logger,
        reach: Reach,
        outbox_limit_bytes: int = OUTBOX_LIMIT_BYTES,
    ) -> None:
        self.store = store
        self.outgoing: deque[OutboxMessage] = deque()
        self.opened = False
        self._module = module
        self._site = site
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._reach = reach
        self._outbox_limit_bytes = outbox_limit_bytes
        self._module_is_stale = False
        self._disk_reason: str | None = None
        self._locked_since: float | None = None
        self._is_lock_lost = False
        self._failing: _Failing | None = None
        self._failures = 0
        self._settings: S | None = None
        self._unsaved: tuple[int | None, bytes] | None = None

    # Settings

    def start(self, context: Context) -> SettingsOutcome | None:
        """Open the module with the last good settings, if there are any: no twin is needed for a start offline."""
        self._context = context
        saved = self.store.load_settings()
        if saved is None:
            return None
        version, document = saved
        return self.apply({**msgspec.json.decode(document, type=dict[str, object]), "$version": version})

    def apply(self, desired: Mapping[str, object]) -> SettingsOutcome:
        """Take a whole desired document or refuse it whole. Before the first good one, a refusal leaves the defaults.

        Raises when the disk refuses to open the module; then call it again.
        """
        outcome = self._apply(desired)
        if not self.opened and outcome.outcome == "refused":
            self._apply({}, save=False)
        return outcome

    def _apply(self, desired: Mapping[str, object], *, save: bool = True) -> SettingsOutcome:
        parsed = settings_reader.parse(self._module.settings_type, desired)
        if isinstance(parsed, settings_reader.RefusedDocument):
            return SettingsOutcome("refused", parsed.version, parsed.path, parsed.reason)
        try:
            self._take(parsed.settings)
        except Refused as refused:
            return SettingsOutcome("refused", parsed.version, refused.path, refused.reason)
        except Exception as error:
            if self._note_disk(error) and not self.opened:
                raise
            self._log.exception("settings failed")
            return SettingsOutcome("refused", parsed.version, "$", f"internal error: {error}")
        if save:
            self._unsaved = (parsed.version, msgspec.json.encode(dict(desired)))
            self._save_settings()
        return SettingsOutcome("accepted", parsed.version, unknown=parsed.unknown)

    def _take(self, settings: S) -> None:
        self._refresh_module()
        if self.opened:
            if settings != self._settings:
                self._module.configure(settings)
                self._settings = settings
            return
        self.store.db.executescript(self._module.schema)
        self.store.begin()
        try:
            self._module.open(self.store.db, settings, self._context)
            self._commit([])
        except BaseException:
            self.store.rollback()
            raise
        self.opened = True
        self._settings = settings

    def _save_settings(self) -> None:
        if self._unsaved is None:
            return
        self.store.begin()
        try:
            self.store.save_settings(*self._unsaved)
            self._commit([])
        except Exception as error:
            self.store.rollback()
            if self._note_disk(error) is None:
                raise
        else:
            self._unsaved = None

    # Messages

    def process(self, message: Incoming, digest: bytes | None = None) -> Done | Held:
        """Bring one input message to its end. `digest` is `body_digest(message.body)` when it is known already."""
        if not self.opened:
            return Held("no_settings", "no settings that this module can start with")
        unsent = self.store.outbox.unsent_bytes
        if unsent > self._outbox_limit_bytes:
            return Held("outbox_full", f"{unsent} bytes wait for edgeHub, the limit is {self._outbox_limit_bytes}")
        digest = digest or body_digest(message.body)
        try:
            return self._attempt(message, self._identity(message, digest))
        except Poison as poison:
            return self._reject(message, digest, poison.reason, poison.detail)
        except Exception as error:
            if held := self._held(error):
                return held
            attempt = self._count_failure(message, digest)
            self._log.exception(
                "message failed", extra=PRIVATE | {"fields": {"attempt": attempt, "input": message.input}}
            )
            if attempt < ATTEMPTS:
                return Held("failed_attempt", f"{type(error).__name__}, attempt {attempt} of {ATTEMPTS}", attempt)
            return self._reject(message, digest, "internal_error", f"{type(error).__name__}: {error}")

    def _count_failure(self, message: Incoming, digest: bytes) -> int:
        """How often this message has failed. One is remembered: the pump tries the oldest again before any other."""
        failing = _Failing(message.input, message.device, message.module, message.message_id, digest)
        self._failures = self._failures + 1 if failing == self._failing else 1
        self._failing = failing
        return self._failures

    def _held(self, error: Exception) -> Held | None:
        """Errors that are no fault of the message."""
        if isinstance(error, Hold):
            return Held(error.reason, error.detail)
        if is_out_of_memory(error):
            self._log.error("out of memory", extra={"fields": {"error": type(error).__name__}})
            return Held("out_of_memory", type(error).__name__)
        if reason := self._note_disk(error):
            return Held(reason, str(error))
        return None

    def _attempt(self, message: Incoming, identity: InputIdentity | None) -> Done:
        self._refresh_module()
        self.store.begin()
        try:
            if not self._is_new(message, identity):
                self._metrics.count("repeats_messages")
                return Done("repeat")
            self._reach("seen_checked")
            if message.input not in self._module.inputs:
                raise Poison("wrong_input", f"this module has no input {message.input!r}")
            tx = self._transaction(message)
            self._module_is_stale = True
            self._module.handle(message, tx)
            self._reach("handled")
            self._record(message, identity, tx)
            self._finish(tx)
            return Done("handled")
        finally:
            self._undo_uncommitted()

    def _reject(self, message: Incoming, digest: bytes, reason: str, detail: str) -> Done | Held:
        try:
            self._refresh_module()
            self.store.begin()
            try:
                identity = self._identity(message, digest)
                tx = self._transaction(message)
                tx.reject(message.body, reason=reason, detail=detail)
                self._record(message, identity, tx)
                self._module_is_stale = True
                self._finish(tx)
            finally:
                self._undo_uncommitted()
        except Exception as error:
            if held := self._held(error):
                return held
            self._log.exception("rejecting failed", extra=PRIVATE)
            return Held("internal_error", f"rejecting failed: {type(error).__name__}")
        self._failing = None
        self._metrics.count("rejected_messages", reason=reason)
        self._log.warning("message rejected", extra={"fields": {"reason": reason, "input": message.input}})
        return Done("rejected", reason)

    def _identity(self, message: Incoming, digest: bytes) -> InputIdentity | None:
        """None when nothing tells a repeat from a second reading with equal bytes."""
        if not message.message_id:
            try:
                timed = self._module.has_timestamp(message.body)
            except Exception:
                self._log.exception("has_timestamp failed", extra=PRIVATE)
                timed = False
            if not timed:
                return None
        return InputIdentity(message.device, message.module, message.message_id or None, digest)

    def _is_new(self, message: Incoming, identity: InputIdentity | None) -> bool:
        if identity is None:
            return True
        verdict = self.store.seen.check(message.input, identity)
        if verdict == "reused":
            self._metrics.count("identity_reused_messages")
        return verdict != "repeat"

    def _record(self, message: Incoming, identity: InputIdentity | None, tx: Transaction) -> None:
        if identity is None:
            tx.count("identity_none_messages")
        else:
            self.store.seen.record(message.input, identity, self.store.running_secs())
        loss = self.store.peers.record(
            message.input, message.device, message.module, message.properties, self._clock.now_micros()
        )
        if loss is not None:
            tx.count("lost_messages", loss.missing)
            # No health reason: it would stay for ever. The loss itself is reported in the twin.
            fields = {"sender": loss.module, "output": loss.output, "first": loss.first, "last": loss.last}
            tx.on_commit(lambda: self._log.error("messages are missing (sequence_gap)", extra={"fields": fields}))

    # Between messages

    def tick(self) -> None:
        """Housekeeping and the module's own tick, once a second."""
        try:
            self._refresh_module()
            self._save_settings()
            self.store.begin()
            try:
                self._tick()
            finally:
                self._undo_uncommitted()
        except Exception as error:
            if self._note_disk(error) is None:
                self._metrics.count("tick_failures")
                self._log.exception("tick failed", extra=PRIVATE)

    def require_unlocked(self) -> None:
        """Raises StoreLocked when only a new process helps: everything here is built on one connection to the file.

        Either nothing could be committed for long, because another process holds the file. Or SQLite has given up on
        its own locks: when the system fails to release one of them, the connection holds it against itself, and every
        so often waits ten seconds for it in vain, until it is closed.
        """
        if self._is_lock_lost:
            raise StoreLocked(f"{self.store.path}: a lock of this process was lost; the module starts anew")
        since = self._locked_since  # read once: the worker may commit meanwhile
        if since is None:
            return
        secs = self._clock.monotonic() - since
        if secs > max(self._clock.scaled(_LOCKED_SECS), _LOCKED_AT_LEAST_SECS):
            raise StoreLocked(f"{self.store.path} stays locked by another process; the module starts anew")

    def _tick(self) -> None:
        evicted = self.store.maintain()
        kept_secs = self._clock.scaled(KEEP_PUBLISHED_SECS)
        prunable = self.store.outbox.prunable(self._clock.monotonic() - kept_secs)
        if prunable is not None:
            self._reach("before_prune")
            self.store.outbox.prune(prunable)
        tx = self._transaction(None)
        if self.opened:
            self._module_is_stale = True
            self._module.tick(tx)
        if evicted:
            tx.count("evicted_sources", evicted)
        self._reach("tick_before_commit")
        self._finish(tx)
        if prunable is not None:
            self._reach("after_prune")

    def transact(self, effect: Callable[[Transaction], T]) -> T:
        """Run an effect in a transaction of its own; whatever it raises comes back after the undoing."""
        self._refresh_module()
        self.store.begin()
        try:
            tx = self._transaction(None)
            self._module_is_stale = True
            result = effect(tx)
            self._reach("effect_before_commit")
            self._finish(tx)
            self._reach("effect_after_commit")
            return result
        except Exception as error:
            self._note_disk(error)
            raise
        finally:
            self._undo_uncommitted()

    def invoke(self, name: str, payload: object) -> tuple[int, object]:
        """Answer a direct method: status and JSON-able payload. What it writes to the module's tables is committed."""
        if not self.opened:
            return 503, {"error": "the module has no settings yet"}
        method = self._module.methods().get(name)
        if method is None:
            return 404, {"error": f"no method {name!r}", "methods": sorted(self._module.methods())}
        try:
            return 200, self.transact(lambda _: method(payload))
        except MethodError as error:
            return error.status, {"error": error.message}
        except Exception as error:
            self._log.exception("method failed", extra=PRIVATE | {"fields": {"method": name}})
            return 500, {"error": f"{type(error).__name__}: {error}"}

    def finish(self) -> None:
        """Persist what is kept lazily (acknowledgement marks, rates). Losing it costs repeats only."""
        try:
            self.store.begin()
            self.store.write_back()
            self._commit([])
        except Exception as error:
            if self._note_disk(error) is None:
                raise
        finally:
            self._undo_uncommitted()

    def status(self) -> Mapping[str, object]:
        """The module's own reported properties; none when it fails to say."""
        try:
            return self._module.status() if self.opened else {}
        except Exception:
            self._log.exception("status failed", extra=PRIVATE)
            return {}

    # Transactions

    def _transaction(self, message: Incoming | None) -> Transaction:
        return Transaction(
            self.store.db,
            site=self._site,
            id_key=self.store.id_key,
            outbox=self.store.outbox,
            message=message,
            received=format_timestamp(self._clock.now_micros()) if message is not None else "",
        )

    def _finish(self, tx: Transaction) -> None:
        # Named steps are an input's: ticks commit so often that nearly every kill would meet one of them instead.
        is_input = tx.message is not None
        if tx.rejected:
            self._emit_rejected(tx)
        if is_input:
            self._reach("before_commit")
        self._commit(tx.after_commit)
        if is_input:
            self._reach("after_commit")
        for name, value, labels in tx.counts:
            self._metrics.count(name, value, **labels)

    def _emit_rejected(self, tx: Transaction) -> None:
        if isinstance(self._module, StoresRejected):
            self._module_is_stale = True
            self._module.store_rejected(tx.rejected, tx)
            return
        sizes = [len(encode(part)) for part in tx.rejected]
        for piece in chunk_by_size(sizes, overhead=_REJECTED_OVERHEAD_BYTES):
            tx.emit("rejected", encode(Rejected(self._site, tx.rejected[piece])))

    def _commit(self, after_commit: list[Callable[[], None]]) -> None:
        self.outgoing.extend(self.store.commit())
        self._module_is_stale = False
        self._locked_since = None
        if self._disk_reason is not None and self.store.has_written:
            self._health.clear(self._disk_reason)
            self._disk_reason = None
        for call in after_commit:
            try:
                call()
            except Exception:
                self._log.exception("a call after the commit failed", extra=PRIVATE)

    def _undo_uncommitted(self) -> None:
        """Never raises: what cannot be undone now is undone before the next use. Does nothing after a commit."""
        if not self.store.is_uncommitted and not self._module_is_stale:
            return
        try:
            self.store.rollback()
            self._refresh_module()
        except Exception as error:
            self._note_disk(error)
            self._log.warning("undoing failed; it is repeated", extra={"fields": {"error": str(error)}})

    def _refresh_module(self) -> None:
        if self.store.is_uncommitted:
            self.store.rollback()
        if self._module_is_stale:
            self._module.rollback()
            self._module_is_stale = False

    def _note_disk(self, error: BaseException) -> str | None:
        if self._locked_since is None and is_locked(error):
            self._locked_since = self._clock.monotonic()
        self._is_lock_lost |= is_lock_lost(error)
        reason = disk_reason(error)
        if reason is not None:
            if self._disk_reason not in (None, reason):
                self._health.clear(str(self._disk_reason))
            self._disk_reason = reason
            self._health.set(reason, str(error))
        return reason
