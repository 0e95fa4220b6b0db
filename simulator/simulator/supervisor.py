"""Keeps modules running as edgeAgent does: start-up order, restart policies, cool-off between restarts.

edgeAgent waits 10 s * 2^n after the n-th restart, at most five minutes, and forgets earlier restarts once a module has
run for ten minutes (RestartPolicyManager and the intensive-care time of its reconciler). Health probes are not looked
at: `on-unhealthy` restarts after a failing exit, as `on-failure` does. Only processes started here are ever signalled.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from simulator.errors import UserError
from simulator.logbook import Logbook
from simulator.manifest import ModuleSpec, RestartPolicy
from simulator.process import STOP_GRACE_SECS, Child, LineSink

COOL_OFF_UNIT_SECS = 10.0
COOL_OFF_LIMIT_SECS = 300.0
_FORGET_AFTER_SECS = 600.0

_SAID_LINES = 5
_KILL_POINT = "kill point "

EnvironmentOf = Callable[[ModuleSpec], Awaitable[Mapping[str, str]]]


def cool_off_secs(restarts: int, limit_secs: float = COOL_OFF_LIMIT_SECS) -> float:
    """How long edgeAgent waits before the next restart, after that many."""
    return min(COOL_OFF_UNIT_SECS * 2.0 ** min(restarts, 10), limit_secs)


def restarts_after(policy: RestartPolicy, exit_code: int) -> bool:
    if policy == "always":
        return True
    return policy != "never" and exit_code != 0


@dataclass(frozen=True)
class Ended:
    """How one process ended. `sent` are the signals it got from here; `said` are the last lines of its output."""

    name: str
    exit_code: int
    sent: frozenset[signal.Signals] = frozenset()
    said: tuple[str, ...] = ()

    @property
    def was_asked_for(self) -> bool:
        """By a signal from here, or at the kill point that it was given."""
        at_kill_point = self.exit_code == -signal.SIGKILL and any(line.startswith(_KILL_POINT) for line in self.said)
        return at_kill_point or -self.exit_code in self.sent

    def __str__(self) -> str:
        last = f": last line {self.said[-1]}" if self.said else " without a word"
        return f"{self.name} {_ending(self.exit_code)}{last}"


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class _Keeper:
    """One module's life: start, wait for its end, decide, cool off, start again."""

    def __init__(
        self,
        spec: ModuleSpec,
        environment_of: EnvironmentOf,
        note: LineSink,
        ends: list[Ended],
        *,
        time_scale: float,
        limit_secs: float,
    ) -> None:
        self.spec = spec
        self.child: Child | None = None
        self.sent: set[signal.Signals] = set()
        self.starts = 0
        self.last_exit: int | None = None
        self.started = asyncio.Event()
        # Held while a process is being made: stopping then would leave one that nobody knows.
        self.starting = asyncio.Lock()
        self._restarts = 0
        self._environment_of = environment_of
        self._note = note
        self._ends = ends
        self._time_scale = time_scale
        self._limit_secs = limit_secs

    async def run(self) -> None:
        """Until the restart policy says that it stays down. Only the first start may fail; others are repeated."""
        while True:
            began = time.monotonic()
            try:
                code = await self._live()
            except Exception as error:
                if not self.starts:
                    raise
                # Whatever it was, a module that nobody looks after any more would be worse.
                ending = str(error) if isinstance(error, UserError) else f"cannot be started: {error!r}"
            else:
                ending = _ending(code)
                if not restarts_after(self.spec.restart_policy, code):
                    self._note(f"-- {ending}; its restart policy is {self.spec.restart_policy}, so it stays down")
                    return
            if (time.monotonic() - began) * self._time_scale > _FORGET_AFTER_SECS:
                self._restarts = 0
            pause = cool_off_secs(self._restarts, self._limit_secs) / self._time_scale
            self._restarts += 1
            self._note(f"-- {ending}; it starts again in {pause:g} s")
            await asyncio.sleep(pause)

    async def _live(self) -> int:
        """One life of the module; its exit code."""
        env = await self._environment_of(self.spec)
        async with self.starting:
            self.child = await Child.start(self.spec.name, self.spec.command, env, sink=self._note)
            self.sent.clear()
        self.starts += 1
        self.started.set()
        code = await self.child.wait()
        self.has_ended(code)
        return code

    def has_ended(self, code: int) -> None:
        self.last_exit = code
        said = tuple(self.child.tail) if self.child is not None else ()
        self._ends.append(Ended(self.spec.name, code, frozenset(self.sent), said[-_SAID_LINES:]))


class Supervisor:
    """Runs the given modules until `stop`. `time_scale` divides cool-off times, which `cool_off_limit_secs` bounds."""

    def __init__(
        self,
        logbook: Logbook,
        *,
        time_scale: float = 1.0,
        cool_off_limit_secs: float = COOL_OFF_LIMIT_SECS,
        grace_secs: float = STOP_GRACE_SECS,
    ) -> None:
        self._logbook = logbook
        self._time_scale = time_scale
        self._limit_secs = cool_off_limit_secs
        self._grace_secs = grace_secs
        self._keepers: dict[str, _Keeper] = {}
        self._observers: dict[str, LineSink] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: list[Ended] = []

    async def start(self, specs: Sequence[ModuleSpec], environment_of: EnvironmentOf) -> None:
        """Start what should run, in start-up order; those with equal numbers together. Raises UserError."""
        for spec in sorted(specs, key=lambda spec: (spec.startup_order, spec.name)):
            if spec.status == "running":
                note = self._sink(spec.name)
                keeper = _Keeper(
                    spec,
                    environment_of,
                    note,
                    self._ends,
                    time_scale=self._time_scale,
                    limit_secs=self._limit_secs,
                )
                await self._start_one(keeper)

    def observe(self, name: str, observer: LineSink) -> None:
        """Have the lines of a module, from its next line on."""
        self._observers[name] = observer

    def _sink(self, name: str) -> LineSink:
        write = self._logbook.sink(name)

        def take(line: str) -> None:
            write(line)
            if observer := self._observers.get(name):
                observer(line)

        return take

    async def _start_one(self, keeper: _Keeper) -> None:
        name = keeper.spec.name
        task = asyncio.create_task(keeper.run(), name=f"keep {name}")
        self._keepers[name], self._tasks[name] = keeper, task
        started = asyncio.create_task(keeper.started.wait())
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done() and not keeper.started.is_set():
            await task

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._keepers)

    @property
    def ends(self) -> tuple[Ended, ...]:
        """Of every process that was ever started and is no more, in order."""
        return tuple(self._ends)

    def starts(self, name: str) -> int:
        """How often this module has been started."""
        return self._keeper(name).starts

    def pid(self, name: str) -> int | None:
        """None while it is not running."""
        child = self._keeper(name).child
        return child.pid if child is not None and child.exit_code is None else None

    def exit_code(self, name: str) -> int | None:
        """Of its last process that ended, negative for a signal; None while none has."""
        return self._keeper(name).last_exit

    def send_signal(self, name: str, number: signal.Signals) -> bool:
        """False when it is not running at the moment."""
        keeper = self._keeper(name)
        child = keeper.child
        if child is None or child.exit_code is not None:
            return False
        keeper.sent.add(number)
        child.signal(number)
        return True

    async def stop(self, *, last: Sequence[str] = ()) -> dict[str, int]:
        """SIGTERM to all, SIGKILL after the grace time; those in `last` once the others are gone.

        Returns the exit codes of those that were running.
        """
        for name, task in self._tasks.items():
            async with self._keepers[name].starting:
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        running = {
            name: keeper.child
            for name, keeper in self._keepers.items()
            if keeper.child is not None and keeper.child.exit_code is None
        }
        codes: dict[str, int] = {}
        for name in running:
            self._keepers[name].sent |= {signal.SIGTERM, signal.SIGKILL}
        for group in ([name for name in running if name not in last], [name for name in last if name in running]):
            ended = await asyncio.gather(*(running[name].stop(grace_secs=self._grace_secs) for name in group))
            codes.update(zip(group, ended, strict=True))
        for name, code in codes.items():
            self._keepers[name].has_ended(code)
        return codes

    def _keeper(self, name: str) -> _Keeper:
        try:
            return self._keepers[name]
        except KeyError:
            raise UserError(f"there is no module {name}; there are {', '.join(self._keepers)}") from None
