"""Plausible pumps at one reading a second: five sensors that follow one load, each with its own noise."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.detector import Floats
from trainer.table import Columns, Series

SENSORS = ("temperature", "pressure", "vibration", "flow", "current")
COLUMNS = Columns(tuple((name, f"/{name}") for name in SENSORS), "/timestamp", "/machine", None)
START_MICROS = 1_767_225_600_000_000

Fault = Literal["spike", "shift", "stuck", "dropout"]


def pump(rng: np.random.Generator, rows: int) -> Floats:
    """Load wanders over minutes; the temperature follows it slowly, the other sensors at once."""
    decay = np.exp(-1 / 120)
    shocks = rng.normal(size=rows) * np.sqrt(1 - decay**2)
    wander, warmth = np.empty(rows), np.empty(rows)
    state = rng.normal()
    for row in range(rows):
        state = decay * state + shocks[row]
        wander[row] = state
    load = np.clip(0.7 + 0.1 * wander + 0.1 * np.sin(np.arange(rows) * 2 * np.pi / 600 + rng.uniform(0, 6)), 0.2, 1.2)
    level = load[0]
    for row in range(rows):
        level += (load[row] - level) / 60
        warmth[row] = level
    base = np.array([40, 4, 1, 20, 5]) * (1 + 0.03 * rng.normal(size=5))
    signal = np.stack([25 * warmth, 2.5 * load**2, 1.2 * load, 60 * load, 9 * load], axis=1)
    noise = rng.normal(size=(rows, 5)) * [0.15, 0.03, 0.05, 0.5, 0.08]
    return np.asarray(np.round(base + signal + noise, 3))


def with_fault(rng: np.random.Generator, values: Floats, kind: Fault, at: int, rows: int) -> Floats:
    changed = values.copy()
    sensor = int(rng.integers(5))
    size = float(rng.choice([-1, 1])) * float(values[:, sensor].std())
    if kind == "spike":
        changed[at : at + int(rng.integers(1, 4)), sensor] += size * rng.uniform(5, 9)
    elif kind == "shift":
        changed[at : at + rows, sensor] += size * rng.uniform(3, 5)
    elif kind == "stuck":
        changed[at : at + rows, sensor] = values[at - 1, sensor]
    else:
        changed[at : at + rows, sensor] = 0.0
    return changed


def times(rows: int, step_secs: int = 1) -> NDArray[np.int64]:
    return START_MICROS + np.arange(rows, dtype=np.int64) * step_secs * 1_000_000


def series(name: str, values: Floats) -> Series:
    rows = len(values)
    return Series(name, Path(f"{name}.jsonl"), times(rows), values, (None,) * rows)


def fleet(count: int, rows: int, seed: int = 7) -> list[Series]:
    rng = np.random.default_rng(seed)
    return [series(f"pump-{number}", pump(rng, rows)) for number in range(count)]
