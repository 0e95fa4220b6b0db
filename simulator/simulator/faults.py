"""Labelled faults of one signal: what is injected, where it begins and ends, and what it does to a value.

Sizes are in spans, a span being the width of the signal's ordinary range, so that a fault means the same on every
signal. Where a fault lies is decided by counting rows, never by a clock: a seed and a row number are enough to know.
"""

import random
from dataclasses import dataclass
from typing import Final, Literal, get_args

FaultKind = Literal["spike", "level_shift", "drift", "stuck", "dropout", "noise"]
FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
# Those that a detector has to find: a drift is meant to hide at first, and a burst of noise may stay inside the range.
JUDGED_KINDS: Final[frozenset[FaultKind]] = frozenset({"spike", "level_shift", "stuck", "dropout"})

# Rows that each kind lasts, and its size in spans, both drawn evenly from these ranges.
_ROWS: Final[dict[FaultKind, tuple[int, int]]] = {
    "spike": (1, 2),
    "level_shift": (25, 40),
    "drift": (50, 70),
    "stuck": (45, 60),
    "dropout": (5, 10),
    "noise": (20, 30),
}
_SIZE_SPANS: Final[dict[FaultKind, tuple[float, float]]] = {
    "spike": (0.7, 1.1),
    "level_shift": (0.4, 0.6),
    "drift": (0.6, 0.8),
    "stuck": (0.0, 0.0),
    "dropout": (0.0, 0.0),
    "noise": (0.25, 0.35),
}


@dataclass(frozen=True)
class Fault:
    """Rows `first` to `last` (both included) of one machine's signal. `size` is in the signal's own unit, signed."""

    machine: str
    kind: FaultKind
    signal: str
    first: int
    last: int
    size: float = 0.0

    def covers(self, index: int) -> bool:
        return self.first <= index <= self.last

    def apply(self, index: int, value: float, frozen: float, rng: random.Random) -> float:
        """The signal's value with this fault in it; `frozen` is the last value before it began."""
        match self.kind:
            case "spike" | "level_shift":
                return value + self.size
            case "drift":
                return value + self.size * (index - self.first + 1) / (self.last - self.first + 1)
            case "stuck":
                return frozen
            case "dropout":
                return 0.0
            case "noise":
                return value + rng.gauss(0.0, abs(self.size))


def draw_fault(kind: FaultKind, machine: str, signal: str, span: float, first: int, rng: random.Random) -> Fault:
    rows = rng.randint(*_ROWS[kind])
    size = rng.uniform(*_SIZE_SPANS[kind]) * span
    if kind != "noise" and rng.random() < 0.5:
        size = 0.0 - size
    return Fault(machine, kind, signal, first, first + rows - 1, size)
