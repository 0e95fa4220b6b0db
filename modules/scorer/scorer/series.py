"""One series' window, moved on by the rows of one message. Pure.

Rules, for rows in order of arrival:
- A row with a missing feature (after the manifest's rule for it) is in no window and changes nothing.
- A step in time above `max_gap_secs`, forward or backward, from the last row that had a time starts anew: that row is
  `gap`, those after it `warm_up` until the window is full. With a window of one row there is nothing to break.
- A row without a readable time is taken in order of arrival. Equal and slightly backward times, too.
- A full window is scored every `stride` rows, counted from the first full one; the rows between are `stride`.

A state is immutable: who computes with it and then fails has changed nothing.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from contract.bundle import Manifest
from contract.messages import NoScore
from scorer.readings import Row

Floats = NDArray[np.float64]

_HEADER: Final = struct.Struct("<?qQI")  # has a time, last time in microseconds, rows since the start, features


@dataclass(frozen=True)
class Layout:
    """What of a manifest the windows depend on. Models with equal layouts share windows; others start anew."""

    length: int
    stride: int
    max_gap_micros: float
    hold: tuple[bool, ...]  # per feature
    fill: Floats  # (features,), NaN where there is none
    single: NDArray[np.bool_]  # (features,) rounded to float32
    digest: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> "Layout":
        parts = (
            manifest.window,
            manifest.max_gap_secs,
            manifest.features,
            manifest.timestamp_pointer,
            manifest.series_pointer,
        )
        return cls(
            length=manifest.window.length,
            stride=manifest.window.stride,
            max_gap_micros=manifest.max_gap_secs * 1e6,
            hold=tuple(feature.missing == "hold_last" for feature in manifest.features),
            fill=np.array([np.nan if feature.fill is None else feature.fill for feature in manifest.features]),
            single=np.array([feature.dtype == "float32" for feature in manifest.features]),
            digest=hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).digest(),
        )

    @property
    def kept_rows(self) -> int:
        """Rows that the next window needs; one at least, for `hold_last`."""
        return max(1, self.length - 1)


@dataclass(frozen=True)
class SeriesState:
    last_micros: int | None
    count: int  # rows since the start or the last gap
    tail: Floats  # (at most kept_rows, features), the newest rows

    def encode(self) -> bytes:
        header = _HEADER.pack(self.last_micros is not None, self.last_micros or 0, self.count, self.tail.shape[1])
        return header + self.tail.astype("<f8").tobytes()

    @classmethod
    def decode(cls, blob: bytes) -> "SeriesState":
        has_time, micros, count, features = _HEADER.unpack_from(blob)
        tail = np.frombuffer(blob, dtype="<f8", offset=_HEADER.size).reshape(-1, features)
        return cls(micros if has_time else None, count, tail.astype(np.float64))

    @classmethod
    def empty(cls, features: int) -> "SeriesState":
        return cls(None, 0, np.empty((0, features)))


@dataclass
class Step:
    """What became of the rows: a reason per row, None where it is scored; `windows` are theirs, in order."""

    state: SeriesState
    reasons: list[NoScore | None] = field(default_factory=list)
    windows: Floats = field(default_factory=lambda: np.empty((0, 0, 0)))


def advance(layout: Layout, state: SeriesState, rows: Sequence[Row]) -> Step:
    """Move the window on by the rows of one message."""
    values = complete(layout, np.array([row.values for row in rows], dtype=np.float64))
    step = Step(state)
    missing: NDArray[np.bool_] = np.asarray(np.isnan(values).any(axis=1))
    holds = any(layout.hold)
    last, count = state.last_micros, state.count
    start, begun = 0, state.tail  # the run of rows now open: its first row in `accepted`, and what came before it
    accepted: list[int] = []
    windows: list[Floats] = []
    scored: list[int] = []  # positions in the open run

    def close_run() -> Floats:
        run = np.concatenate([begun, values[accepted[start:]]]) if len(accepted) > start else begun
        if scored:
            view = sliding_window_view(run, layout.length, axis=0).transpose(0, 2, 1)
            windows.append(view[np.array(scored) + len(begun) - layout.length + 1])
            scored.clear()
        return run

    for index, row in enumerate(rows):
        broken = (
            row.micros is not None
            and last is not None
            and abs(row.micros - last) > layout.max_gap_micros
            and layout.length > 1
        )
        if missing[index]:
            held = holds and not broken and _hold_last(layout, values, index, accepted, start, begun)
            if not held:
                step.reasons.append("missing_feature")
                continue
        if broken:
            close_run()
            start, begun, count = len(accepted), begun[:0], 0
        if row.micros is not None:
            last = row.micros
        accepted.append(index)
        count += 1
        step.reasons.append(_reason(layout, count, broken))
        if step.reasons[-1] is None:
            scored.append(len(accepted) - 1 - start)
    run = close_run()
    if accepted:
        step.state = SeriesState(last, count, run[-layout.kept_rows :].copy())
    if windows:
        step.windows = np.concatenate(windows)
    return step


def complete(layout: Layout, values: Floats) -> Floats:
    """Constants filled in, and float32 features rounded; what overflows there is missing."""
    values = np.where(np.isnan(values), layout.fill, values)
    if layout.single.any():
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32).astype(np.float64)
        rounded[np.isinf(rounded)] = np.nan
        values = np.where(layout.single, rounded, values)
    return values


def _reason(layout: Layout, count: int, broken: bool) -> NoScore | None:
    if count < layout.length:
        return "gap" if broken else "warm_up"
    return "stride" if (count - layout.length) % layout.stride else None


def _hold_last(layout: Layout, values: Floats, index: int, accepted: list[int], start: int, begun: Floats) -> bool:
    """Fill the row's held features from the row before it in the window; False when something is still missing."""
    before = values[accepted[-1]] if len(accepted) > start else begun[-1] if len(begun) else None
    if before is None:
        return False
    filled = np.where(np.isnan(values[index]) & np.array(layout.hold), before, values[index])
    if np.isnan(filled).any():
        return False
    values[index] = filled
    return True
