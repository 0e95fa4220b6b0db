"""Devices that send all the time, each in its own way, and keep a ledger of what they tried.

Four kinds, as customers' devices are:
  steady    sends each message until it is acknowledged; its series crosses an hour
  gateway   so too, for two machines at once; sends some messages again that were acknowledged; crosses an hour
  hasty     tries each message once and goes on
  careless  so too, and sends what nobody can read, whole or in the midst of good rows

Those that give up stay within one hour: a message of theirs may arrive late, and what is stored does not tell when,
across two hours (`simulator.judgement`). Names carry the fleet's prefix, so that one long-lived site serves many.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from simulator.delivery import Message, Mishaps, into_messages, with_mishaps
from simulator.devices import Access, Device
from simulator.ledger import Ledger
from simulator.local_site import LocalSite
from simulator.machines import INTERVAL_SECS, FaultPlan, Pump, Reading

HOUR_MICROS: Final = 3_600_000_000
FIRST_HOUR_MICROS: Final = 1_700_002_800_000_000
ROWS_PER_MESSAGE: Final = 5
_CALL_SECS = 4.0
_STOP_SECS = 5.0
_PAUSE_SECS = 0.2
_REPEATED = 0.1
_SPOILED = 0.1
_PLAN = FaultPlan(lead_rows=60, quiet_rows=(30, 60))
_POISON = (b"\xff\x00", b"{", b"", b"17", b'"text"', b'[{"ts":1},')
_BAD_ELEMENTS = ("17", '"x"', "null", "[]")


@dataclass(frozen=True)
class Kind:
    name: str
    gives_up: bool = False
    machines: int = 1
    repeated: float = 0.0
    spoiled: float = 0.0


KINDS: Final = (
    Kind("steady"),
    Kind("gateway", machines=2, repeated=_REPEATED),
    Kind("hasty", gives_up=True, repeated=_REPEATED),
    Kind("careless", gives_up=True, spoiled=_SPOILED),
)


@dataclass
class Fleet:
    """`start`, let time pass, `stop`; then `ledger` says what was tried. Each device sends `rate` messages a second."""

    site: LocalSite
    prefix: str
    seed: int
    rate: float = 4.0
    kinds: tuple[Kind, ...] = KINDS
    note: Callable[[str], None] = lambda text: None
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self._stopping = asyncio.Event()
        self._devices: list[Device] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def names(self) -> list[str]:
        return [f"{self.prefix}{kind.name}" for kind in self.kinds]

    async def start(self) -> None:
        """Returns when every device is connected and sends. edgeHub must be up."""
        accesses = [await self.site.add_device(name) for name in self.names]
        # The SDK's constructor blocks for a moment.
        self._devices = [await asyncio.to_thread(self._make, access) for access in accesses]
        await asyncio.gather(*(device.connect() for device in self._devices))
        for kind, device in zip(self.kinds, self._devices, strict=True):
            # Not of the prefix: a cell that is repeated alone is the first of its site, and must send the same.
            rng = random.Random(f"fleet/{self.seed}/{kind.name}")
            messages = messages_of(kind, device.name, self.seed, rng)
            self._tasks.append(asyncio.create_task(self._send(kind, device, messages), name=device.name))

    async def stop(self, patience_secs: float = _STOP_SECS) -> None:
        """Bounded, also while edgeHub is away. What is under way after `patience_secs` is cut off: attempted."""
        self._stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience_secs)
            for task in late:
                task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(device.__aexit__() for device in self._devices))
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _make(self, access: Access) -> Device:
        return Device(access, ledger=self.ledger, note=self.note, call_secs=_CALL_SECS, pause_limit_secs=_PAUSE_SECS)

    async def _send(self, kind: Kind, device: Device, messages: Iterator[Message]) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        for message in messages:
            # After an outage there is no burst of catching up.
            due = max(due, clock() - 1 / self.rate) + 1 / self.rate
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due - clock()))
            if self._stopping.is_set():
                return
            if not kind.gives_up:
                await device.send(message)
            elif not (await device.try_send(message)).acknowledged and not device.is_connected:
                await device.connect()


def messages_of(kind: Kind, device: str, seed: int, rng: random.Random) -> Iterator[Message]:
    """Without end. One seed is one exact run, whatever the device is called."""
    rows = _interleaved([_readings(kind, number, seed, rng) for number in range(kind.machines)])
    messages = into_messages(rows, device=device, rows_per_message=ROWS_PER_MESSAGE)
    return with_mishaps(_with_spoils(messages, kind.spoiled, rng), Mishaps(repeated=kind.repeated), rng)


def _readings(kind: Kind, number: int, seed: int, rng: random.Random) -> Iterator[Reading]:
    """Of those that do not give up a full hour comes 3 to 15 messages after the start."""
    rows = rng.uniform(3, 15) * ROWS_PER_MESSAGE / kind.machines
    before_the_hour = HOUR_MICROS // 2 if kind.gives_up else round(rows * INTERVAL_SECS * 1_000_000)
    name = kind.name if kind.machines == 1 else f"{kind.name}-{number + 1}"
    return Pump(seed, name, FIRST_HOUR_MICROS + HOUR_MICROS - before_the_hour, plan=_PLAN).readings()


def _interleaved(streams: list[Iterator[Reading]]) -> Iterator[Reading]:
    while True:
        for stream in streams:
            yield next(stream)


def _with_spoils(messages: Iterator[Message], share: float, rng: random.Random) -> Iterator[Message]:
    """Now and then poison goes first, or a bad element gets in among the rows."""
    for number in count(1):
        message = next(messages)
        if rng.random() < share:
            yield Message(f"{message.message_id}-poison-{number}", rng.choice(_POISON), ())
        if rng.random() < share:
            texts = list(message.texts)
            texts.insert(rng.randrange(len(texts) + 1), rng.choice(_BAD_ELEMENTS))
            message = Message(message.message_id, f"[{','.join(texts)}]".encode(), message.texts)
        yield message
