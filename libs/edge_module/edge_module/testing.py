"""Run a module in a test with everything real but the hub: the same engine, the same SQLite file, the same identities.

    bench = Bench(Scorer, tmp_path, settings={"when_no_model": "pass"})
    done = bench.feed(b'{"t": 1}', message_id="7")
    assert [message.output for message in done.emitted] == ["scores"]
    bench.restart()                          # as after kill -9: a new module object on the reopened file
    assert bench.feed(b'{"t": 1}', message_id="7").how == "repeat"

What the hub does around it (order of acknowledgements, copies, reconnects) is tested in tests/edge_module.
"""

import asyncio
import errno
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from edge_module.engine import OUTBOX_LIMIT_BYTES, Done, Engine, Held, SettingsOutcome
from edge_module.health import Health
from edge_module.metrics import Metrics
from edge_module.module import Context, Incoming, Module
from edge_module.outbox import OutboxMessage
from edge_module.store import Store
from edge_module.transaction import Transaction

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class ManualClock:
    """Stands still until it is moved: `advance` moves wall clock and monotonic time, `jump` the wall clock alone."""

    def __init__(self, micros: int = 1_795_000_000_000_000) -> None:
        self._micros = micros
        self._monotonic = 1000.0

    def now_micros(self) -> int:
        return self._micros

    def monotonic(self) -> float:
        return self._monotonic

    def scaled(self, secs: float) -> float:
        return secs

    def advance(self, secs: float) -> None:
        self._micros += round(secs * 1_000_000)
        self._monotonic += secs

    def jump(self, secs: float) -> None:
        self._micros += round(secs * 1_000_000)


class SimulatedCrash(BaseException):
    """The process would have died here. Call `restart()` next."""


class Result(msgspec.Struct, frozen=True):
    """`how` is "held" when the message was not acknowledged; then nothing was emitted."""

    how: Literal["handled", "repeat", "rejected", "held"]
    reason: str
    detail: str
    emitted: list[OutboxMessage]


class Bench(Generic[S]):
    """`make_module` is called at the start and at every restart. `settings` are the desired properties."""

    def __init__(
        self,
        make_module: Callable[[], Module[S]],
        state_dir: Path,
        *,
        settings: Mapping[str, object] | None = None,
        config_dir: Path | None = None,
        site: str = "site",
        device: str = "edge",
        clock: ManualClock | None = None,
        boot_id: str = "boot-1",
        outbox_limit_bytes: int = OUTBOX_LIMIT_BYTES,
    ) -> None:
        self._make_module = make_module
        self._state_dir = state_dir
        self._config_dir = config_dir or state_dir
        self._site = site
        self._device = device
        self._settings: dict[str, object] = dict(settings or {})
        self._version = 1
        self._outbox_limit_bytes = outbox_limit_bytes
        self._failures: dict[str, BaseException] = {}
        self.clock = clock or ManualClock()
        self.boot_id = boot_id
        self.reported: dict[str, object] = {}
        self._open()

    # What the hub would do

    def feed(
        self,
        body: bytes,
        *,
        input: str | None = None,
        device: str = "device-1",
        module: str = "",
        message_id: str | None = None,
        properties: Mapping[str, str] | None = None,
        content_type: str | None = "application/json",
        content_encoding: str | None = "utf-8",
        created: str | None = None,
    ) -> Result:
        """Give the module one input message. `input` may be left out when the module has only one."""
        if input is None:
            (input,) = self.module.inputs
        return self.feed_message(
            Incoming(
                input=input,
                body=body,
                properties=properties or {},
                device=device,
                module=module,
                message_id=message_id,
                content_type=content_type,
                content_encoding=content_encoding,
                created=created,
            )
        )

    def feed_message(self, message: Incoming) -> Result:
        outcome = self.engine.process(message)
        while isinstance(outcome, Held) and outcome.attempt:
            outcome = self.engine.process(message)  # as the pump does, after a pause
        emitted = self._take_outgoing()
        if isinstance(outcome, Held):
            return Result("held", outcome.reason, outcome.detail, emitted)
        assert isinstance(outcome, Done)
        return Result(outcome.how, outcome.reason, "", emitted)

    def forward(self, message: OutboxMessage, *, input: str, module: str) -> Result:
        """Give the module what another bench's module emitted, as edgeHub would."""
        return self.feed(
            message.body,
            input=input,
            device=self._device,
            module=module,
            message_id=message.message_id,
            properties=message.properties,
        )

    def tick(self, secs: float = 1.0) -> list[OutboxMessage]:
        """Let time pass, then run one tick; what it emitted."""
        self.clock.advance(secs)
        self.engine.tick()
        return self._take_outgoing()

    def set_settings(self, settings: Mapping[str, object]) -> SettingsOutcome:
        """A new desired document, whole."""
        self._version += 1
        outcome = self.engine.apply({**settings, "$version": self._version})
        if outcome.outcome == "accepted":
            self._settings = dict(settings)
        return outcome

    def method(self, name: str, payload: object = None) -> tuple[int, object]:
        return self.engine.invoke(name, payload)

    def acknowledge_published(self) -> None:
        """edgeHub has acknowledged everything in the outbox."""
        unsent = self.engine.store.outbox.unsent(0, rows=1_000_000, size=1 << 40)
        if unsent:
            self.engine.store.outbox.acknowledge(len(unsent), sum(len(m.body) for m in unsent), unsent[-1].seq)

    # What goes wrong

    def fail_next(self, step: str, error: BaseException | None = None) -> None:
        """Raise at the next pass of a step (edge_module.kill_points.STEPS); a full disk when no error is given."""
        self._failures[step] = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def crash_next(self, step: str) -> None:
        """Raise SimulatedCrash at the next pass of a step: nothing after it happens. Call `restart()` then."""
        self._failures[step] = SimulatedCrash(step)

    def restart(self, *, reboot: bool = False) -> None:
        """A new process on the same files, after SIGKILL; with `reboot` the kernel has started again, too."""
        # Closing rolls an open transaction back, as recovery after a kill does.
        self.engine.store.close()
        self._failures.clear()
        if reboot:
            self.boot_id += "+"
        self._open()

    # What there is to see

    @property
    def kept(self) -> list[OutboxMessage]:
        """Every message still in the outbox, in order."""
        return self.engine.store.outbox.all_kept()

    def transact(self, effect: Callable[[Transaction], T]) -> T:
        """What `context.transact` does, at once."""
        return self.engine.transact(effect)

    def close(self) -> None:
        self.engine.store.close()

    def _open(self) -> None:
        log = logging.getLogger("edge_module.bench")
        self.health = Health()
        self.module = self._make_module()
        self.metrics = Metrics(self.module.name)
        store = Store(self._state_dir / f"{self.module.name}.db", clock=self.clock, boot_id=self.boot_id)
        # Closes the file when a test forgets to; Python 3.13 warns otherwise.
        weakref.finalize(self, store.close)
        self.engine = Engine(
            self.module,
            store,
            site=self._site,
            clock=self.clock,
            metrics=self.metrics,
            health=self.health,
            log=log,
            reach=self._reach,
            outbox_limit_bytes=self._outbox_limit_bytes,
        )
        context = Context(
            site=self._site,
            device=self._device,
            config_dir=self._config_dir,
            state_dir=self._state_dir,
            id_key=store.id_key,
            log=log,
            metrics=self.metrics,
            health=self.health,
            clock=self.clock,
            transact=self._transact,
            report=self.reported.update,
            retry_held=lambda: None,
            reach=self._reach,
        )
        self.started_with = self.engine.start(context)
        if not self.engine.opened:
            self.started_with = self.engine.apply({**self._settings, "$version": self._version})

    def _transact(self, effect: Callable[[Transaction], T]) -> Awaitable[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self.engine.transact(effect))
        except Exception as error:
            future.set_exception(error)
        return future

    def _reach(self, step: str) -> None:
        if error := self._failures.pop(step, None):
            raise error

    def _take_outgoing(self) -> list[OutboxMessage]:
        taken = list(self.engine.outgoing)
        self.engine.outgoing.clear()
        return taken
