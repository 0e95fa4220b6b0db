"""Simulated pumps: five signals that follow one shared load, so that a fault in one of them breaks the pattern.

The load swings through compressed days and shifts (47 s and 13 s of machine time) with a slow random walk on top.
Flow follows it in proportion (affinity laws), pressure with its square, current and vibration rise with it, and the
temperature of the motor follows as a first-order lag. On top lies measurement noise. One seed is one exact run: every
machine draws from a generator of its own (Mersenne Twister seeded with text, the same on every platform), and nothing
else decides.
"""

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from contract.timestamps import format_timestamp
from simulator.faults import FAULT_KINDS, Fault, FaultKind, draw_fault

DAY_SECS: Final = 47.0
SHIFT_SECS: Final = 13.0
INTERVAL_SECS: Final = 0.2
_TEMPERATURE_LAG_SECS: Final = 12.0
_WALK_SECS: Final = 8.0
_OPERATORS: Final = ("a.berg", "j.okafor", "m.silva", "r.novak", "s.ito")


@dataclass(frozen=True)
class Signal:
    """`span` is the width of the ordinary range; `decimals` is how the sensor reports."""

    name: str
    unit: str
    span: float
    noise: float
    decimals: int


SIGNALS: Final[tuple[Signal, ...]] = (
    Signal("temperature", "°C", 8.0, 0.08, 2),
    Signal("pressure", "bar", 3.3, 0.025, 3),
    Signal("vibration", "mm/s", 1.5, 0.03, 5),
    Signal("flow", "m3/h", 25.0, 0.25, 4),
    Signal("current", "A", 13.0, 0.12, 2),
)
UNITS: Final[dict[str, str]] = {signal.name: signal.unit for signal in SIGNALS}
_BY_NAME: Final = {signal.name: signal for signal in SIGNALS}
# A sensor that sticks is only noticed when what it measures moves.
_STUCK_SIGNALS: Final = ("pressure", "flow", "current")


@dataclass(frozen=True)
class Reading:
    """One row as it leaves the machine. `text` is the exact JSON that is sent."""

    machine: str
    index: int
    ts_micros: int
    values: dict[str, float]
    text: str
    fault: Fault | None = None


@dataclass(frozen=True)
class FaultPlan:
    """When faults come: the first after `lead_rows`, the next after a quiet stretch drawn from `quiet_rows`.

    None begins that would not end at least `tail_rows` before row `rows` (None: the machine runs on for ever).
    """

    lead_rows: int = 100
    quiet_rows: tuple[int, int] = (60, 90)
    tail_rows: int = 30
    rows: int | None = None


@dataclass
class Pump:
    """A machine. `faults` grows as its readings are taken; without a plan it stays healthy.

    `chapter` tells apart stretches of one machine's life: another chapter is the same pump on other days.
    """

    seed: int
    name: str
    start_micros: int
    interval_secs: float = INTERVAL_SECS
    plan: FaultPlan | None = None
    chapter: int = 0
    faults: list[Fault] = field(default_factory=list)

    def readings(self) -> Iterator[Reading]:
        """Without end. Calling it again gives the same readings again."""
        self.faults.clear()
        physics = self._physics()
        faults = self._rng("faults")
        burst = self._rng("bursts")
        about = _about(self.seed, self.name)
        upcoming = self._next_fault(faults, 0)
        before = {signal.name: 0.0 for signal in SIGNALS}
        for index, values in enumerate(physics):
            while upcoming is not None and index > upcoming.last:
                upcoming = self._next_fault(faults, upcoming.last + 1)
            fault = upcoming if upcoming is not None and upcoming.covers(index) else None
            if fault is not None:
                if fault.first == index:
                    self.faults.append(fault)
                healthy = values[fault.signal]
                values[fault.signal] = fault.apply(index, healthy, before[fault.signal], burst)
            else:
                before = dict(values)
            ts_micros = self.start_micros + round(index * self.interval_secs * 1_000_000)
            yield Reading(self.name, index, ts_micros, values, _as_json(self.name, ts_micros, values, about), fault)

    def _physics(self) -> Iterator[dict[str, float]]:
        make = random.Random(f"gains/{self.seed}/{self.name}")
        gains = {signal.name: make.uniform(0.99, 1.01) for signal in SIGNALS}
        rng = self._rng("physics")
        day, shift = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
        keep = math.exp(-self.interval_secs / _WALK_SECS)
        follow = 1 - math.exp(-self.interval_secs / _TEMPERATURE_LAG_SECS)
        walk = rng.gauss(0, 0.02)
        warmth: float | None = None
        index = 0
        while True:
            t = index * self.interval_secs
            walk = walk * keep + rng.gauss(0, 0.02 * math.sqrt(1 - keep * keep))
            load = 0.62 + 0.2 * math.sin(math.tau * t / DAY_SECS + day)
            load += 0.1 * math.sin(math.tau * t / SHIFT_SECS + shift) + walk
            load = min(max(load, 0.25), 1.0)
            warmth = load if warmth is None else warmth + follow * (load - warmth)
            ideal = {
                "temperature": 38.0 + 30.0 * warmth,
                "pressure": 1.5 + 1.5 * load + 3.0 * load * load,
                "vibration": 1.1 + 2.5 * load,
                "flow": 42.0 * load,
                "current": 7.0 + 22.0 * load,
            }
            yield {name: value * gains[name] + rng.gauss(0, _BY_NAME[name].noise) for name, value in ideal.items()}
            index += 1

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{what}/{self.seed}/{self.name}/{self.chapter}")

    def _next_fault(self, rng: random.Random, after: int) -> Fault | None:
        if self.plan is None:
            return None
        first = self.plan.lead_rows if after == 0 else after + rng.randint(*self.plan.quiet_rows)
        kind = self._next_kind(rng)
        signal = rng.choice(_STUCK_SIGNALS) if kind == "stuck" else rng.choice(SIGNALS).name
        fault = draw_fault(kind, self.name, signal, _BY_NAME[signal].span, first, rng)
        if self.plan.rows is not None and fault.last + self.plan.tail_rows >= self.plan.rows:
            return None
        return fault

    def _next_kind(self, rng: random.Random) -> FaultKind:
        """Every kind comes once before any comes again, in an order of this machine's own."""
        seen = [fault.kind for fault in self.faults]
        round_start = len(seen) - len(seen) % len(FAULT_KINDS)
        return rng.choice([kind for kind in FAULT_KINDS if kind not in seen[round_start:]])


def with_clock_jump(readings: Iterable[Reading], *, at: int, secs: float) -> Iterator[Reading]:
    """From row `at` on, the machine's clock is `secs` ahead (negative: behind) of what it was."""
    for reading in readings:
        if reading.index < at:
            yield reading
            continue
        ts_micros = reading.ts_micros + round(secs * 1_000_000)
        text = reading.text.replace(_ts_text(reading.ts_micros), _ts_text(ts_micros), 1)
        yield replace(reading, ts_micros=ts_micros, text=text)


def machine_names(count: int) -> list[str]:
    width = max(2, len(str(count)))
    return [f"pump-{number:0{width}}" for number in range(1, count + 1)]


def _about(seed: int, name: str) -> dict[str, str]:
    """What identifies a person or a thing and must not leave the site."""
    rng = random.Random(f"about/{seed}/{name}")
    return {"operator": rng.choice(_OPERATORS), "serial_number": f"SN-{rng.randrange(10**8):08}"}


def _as_json(name: str, ts_micros: int, values: dict[str, float], about: dict[str, str]) -> str:
    """Numbers stand as the sensor reports them, trailing zeros and all."""
    parts = [_ts_text(ts_micros), f'"machine":{json.dumps(name)}']
    parts += [f'"{signal.name}":{values[signal.name]:.{signal.decimals}f}' for signal in SIGNALS]
    parts += [f'"{key}":{json.dumps(value)}' for key, value in about.items()]
    return "{" + ",".join(parts) + "}"


def _ts_text(ts_micros: int) -> str:
    return f'"ts":"{format_timestamp(ts_micros)}"'
