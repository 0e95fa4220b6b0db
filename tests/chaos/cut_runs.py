"""Power cuts inside one process, at every point at which they differ.

A module runs once, undisturbed, on a forgetful disk. At every point (before and after each sync of its files, and each
time edgeHub learns something from it) a `Cut` is taken: what the disk would hold, and what the world knows by then.
Then each cut is lived through: the module starts on that disk with another boot id, edgeHub has forgotten the last of
what it had acknowledged to the module and delivers again what it had not noted as done, and the workload goes on to its
end. What comes out must be what the undisturbed run put out.

Between two points neither the synced bytes nor the world change, so for a strict disk these are all the cuts there are.
With a seed, the disk also holds some of what was not synced (`tests.chaos.forgetful_disk`).
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_module import Incoming, OutboxMessage
from edge_module.testing import Bench, ManualClock
from tests.chaos.forgetful import power_supply
from tests.chaos.forgetful_disk import Disk

START_MICROS = 1_795_000_000_000_000
_HUB_FORGETS_SECS = 5.0
_HUB_DELIVERS_AGAIN = 3

Image = Mapping[str, bytes]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Step:
    """One input message, or a tick when there is none, `at` seconds after the start."""

    at: float
    message: Incoming | None = None


@dataclass(frozen=True)
class Published:
    at: float
    message: OutboxMessage


@dataclass
class Hub:
    """What edgeHub knows: how many steps are acknowledged to it, and what it has acknowledged to the module."""

    done: int = 0
    published: list[Published] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    label: str
    image: Image
    done: int
    published: int


class Broken(AssertionError):
    """A promise was not kept; says at which cut, and how."""


MakeBench = Callable[[Path, ManualClock, str], Bench[Any]]
"""Of a state folder, a clock and a boot id."""


class Life:
    """One boot of a module, `at` seconds after the start."""

    def __init__(
        self, make_bench: MakeBench, folder: Path, hub: Hub, *, at: float, boot_id: str, point: Callable[[str], None]
    ) -> None:
        self._hub = hub
        self._point = point
        self._clock = ManualClock(START_MICROS + round(at * 1_000_000))
        self.bench = make_bench(folder, self._clock, boot_id)

    def publish_what_is_owed(self) -> None:
        """What the outbox holds as unsent, in order, as the publisher does after a start."""
        self._publish(self.bench.engine.store.outbox.unsent(0, rows=1_000_000, size=1 << 40))

    def work(self, steps: Sequence[Step]) -> None:
        for number in range(self._hub.done, len(steps)):
            step = steps[number]
            self._go_on_to(step.at)
            emitted = self.bench.tick(0.0) if step.message is None else self._feed(step.message)
            self._hub.done = number + 1
            self._point("acknowledged")
            self._publish(emitted)

    def _feed(self, message: Incoming) -> list[OutboxMessage]:
        result = self.bench.feed_message(message)
        if result.how == "held":
            raise Broken(f"message {message.message_id} is held: {result.reason} {result.detail}")
        return result.emitted

    def _go_on_to(self, at: float) -> None:
        passed = self._clock.now_micros() - START_MICROS
        self._clock.advance(max(0.0, at - passed / 1_000_000))

    def _publish(self, messages: Iterable[OutboxMessage]) -> None:
        now = (self._clock.now_micros() - START_MICROS) / 1_000_000
        for message in messages:
            self._hub.published.append(Published(now, message))
            self._point("published")
        self.bench.acknowledge_published()


@dataclass
class Recording:
    """The undisturbed run and its cuts."""

    make_bench: MakeBench
    steps: Sequence[Step]
    hub: Hub
    cuts: list[Cut]
    epoch: str


def record(
    make_bench: MakeBench,
    steps: Sequence[Step],
    folder: Path,
    *,
    seed: int | None = None,
    leak: float = 0.1,
    synchronous: str | None = None,
) -> Recording:
    """Run it once. `synchronous` replaces the setting that the product asks for, to prove that it is needed."""
    folder.mkdir(parents=True)
    disk = Disk(seed=seed, leak=leak)
    rng = None if seed is None else random.Random(seed)
    hub = Hub()
    cuts: list[Cut] = []

    def take(label: str) -> None:
        cuts.append(Cut(label, disk.image(rng), hub.done, len(hub.published)))

    disk.on_point = take
    with power_supply(disk, synchronous=synchronous):
        life = Life(make_bench, folder, hub, at=0.0, boot_id="boot-1", point=take)
        life.work(steps)
        epoch = life.bench.engine.store.epoch
        life.bench.close()
    take("closed")
    return Recording(make_bench, steps, hub, cuts, epoch)


def live_through(recording: Recording, cut: Cut, folder: Path, rng: random.Random, *, synchronous: str | None) -> None:
    """Start again after this cut and go on to the end. Raises Broken."""
    folder.mkdir(parents=True)
    hub, at = _after(recording, cut, rng)
    survived = list(hub.published)
    disk = disk_with(cut.image, folder)
    with power_supply(disk, synchronous=synchronous):
        life = Life(recording.make_bench, folder, hub, at=at, boot_id="boot-2", point=lambda label: None)
        try:
            life.publish_what_is_owed()
            life.work(recording.steps)
            epoch = life.bench.engine.store.epoch
        finally:
            life.bench.close()
    before = [each.message for each in recording.hub.published[: cut.published]]
    after = [each.message for each in hub.published[len(survived) :]]
    if epoch != recording.epoch:
        _judge_new_file(recording, cut, after)
        return
    check_numbers(before + after)
    kept = [each.message for each in survived] + after
    check_all_there(expected=[each.message for each in recording.hub.published], found=kept)


def _after(recording: Recording, cut: Cut, rng: random.Random) -> tuple[Hub, float]:
    """What is left of edgeHub's knowledge, and when: a suffix of a few seconds is forgotten, each kind on its own."""
    steps = recording.steps
    at = steps[min(cut.done, len(steps) - 1)].at
    known = recording.hub.published[: cut.published]
    recent = sum(1 for each in known if each.at >= at - _HUB_FORGETS_SECS)
    kept = len(known) - rng.randint(0, recent)
    done = max(0, cut.done - rng.randint(0, _HUB_DELIVERS_AGAIN))
    return Hub(done, known[:kept]), at


def disk_with(image: Image, folder: Path) -> Disk:
    """The same files in another folder."""
    disk = Disk()
    for path, content in image.items():
        disk.put_durable(str(folder.resolve() / Path(path).name), content)
    return disk


def _judge_new_file(recording: Recording, cut: Cut, after: Sequence[OutboxMessage]) -> None:
    """A file that was made anew is another sender; that is right only when nobody has heard of the old one."""
    if cut.done or cut.published:
        raise Broken(f"the file is gone after {cut.done} acknowledged steps")
    check_numbers(after)
    # Its keyed hashes differ, so bytes are not compared.
    wanted = {(each.message.output, each.message.n) for each in recording.hub.published}
    if wanted != {(message.output, message.n) for message in after}:
        raise Broken("another number of messages than undisturbed")


def check_numbers(messages: Iterable[OutboxMessage]) -> None:
    """No number stands for two messages, whoever may have seen the first."""
    found: dict[Key, OutboxMessage] = {}
    for message in messages:
        before = found.setdefault(_key(message), message)
        if _content(before) != _content(message):
            raise Broken(f"{message.output} n={message.n} was published twice with different bytes")


def check_all_there(*, expected: Iterable[OutboxMessage], found: Iterable[OutboxMessage]) -> None:
    """What is left after deduplication is the undisturbed run, byte for byte."""
    wanted = {_key(message): _content(message) for message in expected}
    there = {_key(message): _content(message) for message in found}
    if missing := wanted.keys() - there.keys():
        raise Broken(f"missing: {sorted(missing)[:3]}, {len(missing)} in all")
    if extra := there.keys() - wanted.keys():
        raise Broken(f"never sent in the undisturbed run: {sorted(extra)[:3]}, {len(extra)} in all")
    if other := [key for key in wanted if wanted[key] != there[key]]:
        raise Broken(f"other bytes: {other[:3]}, {len(other)} in all")


def _key(message: OutboxMessage) -> Key:
    return (message.properties["epoch"], message.output, str(message.n))


def _content(message: OutboxMessage) -> tuple[str, bytes, dict[str, str]]:
    return (message.message_id, message.body, message.properties)
