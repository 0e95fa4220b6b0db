"""`train`: from series of readings to a verified bundle. Equal data and configuration give equal bytes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.bundle import (
    MANIFEST_FILE,
    PARITY_FILE,
    Bundle,
    Feature,
    Manifest,
    ModelFile,
    ParityRow,
    Threshold,
    Training,
    Window,
    encode_manifest,
    encode_parity,
    sha256_digest,
)
from contract.timestamps import format_timestamp, parse_timestamp
from trainer.detector import Detector, Floats, fit, score
from trainer.errors import TrainError
from trainer.graph import to_onnx
from trainer.labels import Event
from trainer.quiet_onnx import onnxruntime
from trainer.table import NO_TIME, Columns, Series
from trainer.threshold import rule, threshold
from trainer.windows import SeriesWindows, cut, usual_max_gap_secs

TRAINER = "windowed_pca/1"
MEANING = "the greater of T² and SPE, each as a multiple of its 99 % limit; contributions are shares that sum to 1"
FOLDS = 5
# Fewer say too little about what is usual.
MIN_WINDOWS = 100
# More add time and memory, not knowledge; beyond it every n-th window is taken.
MAX_WINDOWS = 200_000
MAX_VALUES = 20_000_000
MIN_LENGTH = 4
PARITY_ROWS = 16
# Scores of one window by different float64 libraries differ by some 1e-15.
PARITY_TOLERANCE = 1e-9

Progress = Callable[[str, int, int], None]  # what, done, of


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str
    version: str = "1"
    window: int = 16  # rows
    stride: int = 1  # rows from one scored window to the next
    explained_variance: float = 0.99
    false_alarm_rate: float = 1e-6  # wanted share of clean windows above the threshold
    train_fraction: float = 1.0  # of each series, from its start
    max_gap_secs: float | None = None  # None: ten of the usual sampling periods
    created: str | None = None  # None: the newest time in the data, so that equal data give equal bundles
    units: Mapping[str, str] = field(default_factory=dict)  # by feature name

    def __post_init__(self) -> None:
        if self.window < MIN_LENGTH:
            raise TrainError(f"--window {self.window} is too short; {MIN_LENGTH} rows are the least")
        if self.stride < 1:
            raise TrainError("--stride must be at least 1")
        if not 0 < self.train_fraction <= 1:
            raise TrainError("--train-fraction must be above 0 and at most 1")
        if not 0 < self.explained_variance <= 1:
            raise TrainError("--explained-variance must be above 0 and at most 1")
        if not 0 < self.false_alarm_rate < 0.02:
            raise TrainError("--false-alarm-rate must be above 0 and below 0.02")
        if self.max_gap_secs is not None and not 0 < self.max_gap_secs <= 1e9:
            raise TrainError("--max-gap-secs must be above 0")
        if self.created is not None and parse_timestamp(self.created) is None:
            raise TrainError(f"--created {self.created!r} is not a time; write it as 2026-01-31T12:00:00Z")


@dataclass(frozen=True)
class Trained:
    """A bundle as files, and what one may want to know about its making."""

    files: Mapping[str, bytes]
    bundle: Bundle
    detector: Detector
    windows: int
    trained_rows: tuple[int, ...]  # per series, how many of its first rows were looked at


def train(
    series: Sequence[Series],
    columns: Columns,
    config: Config,
    *,
    events: Sequence[Event] = (),
    progress: Progress = lambda *_: None,
) -> Trained:
    """Fit, set the threshold on held-out windows, and check the graph against numpy. Raises TrainError.

    Rows of labelled events are not clean, so no window that holds one is trained on.
    """
    max_gap_secs = config.max_gap_secs or usual_max_gap_secs(series)
    trained_rows = tuple(int(len(one.times) * config.train_fraction) for one in series)
    pieces = [
        cut(one, config.window, max_gap_secs, _clean(one, rows, events))
        for one, rows in zip(series, trained_rows, strict=True)
    ]
    windows, folds = _gather(pieces, config)
    detector, held_out = _cross_fit(windows, folds, config, progress)
    limit = threshold(held_out, config.false_alarm_rate)
    model = to_onnx(detector)
    parity = _parity_rows(detector, windows)
    _check_graph(model, parity)
    contents = {"model.onnx": model, PARITY_FILE: encode_parity(parity)}
    manifest = Manifest(
        name=config.name,
        version=config.version,
        created=config.created or _newest_time(series, trained_rows),
        features=tuple(
            Feature(name, pointer, (config.units or {}).get(name, "")) for name, pointer in columns.features
        ),
        timestamp_pointer=columns.timestamp,
        series_pointer=columns.series,
        max_gap_secs=max_gap_secs,
        window=Window(config.window, config.stride),
        model=ModelFile(meaning=MEANING),
        threshold=Threshold(limit, rule(held_out, config.false_alarm_rate)),
        training=_fingerprint(series, trained_rows),
        files={path: sha256_digest(content) for path, content in contents.items()},
    )
    files = {MANIFEST_FILE: encode_manifest(manifest), **contents}
    return Trained(files, Bundle.from_files(files), detector, len(windows), trained_rows)


def _clean(series: Series, rows: int, events: Sequence[Event]) -> NDArray[np.bool_]:
    keep = np.arange(len(series.times)) < rows
    for event in events:
        if event.series == series.name:
            keep[event.first : event.last + 1] = False
    return keep


def _gather(pieces: Sequence[SeriesWindows], config: Config) -> tuple[Floats, NDArray[np.int64]]:
    """The training windows and each one's fold: a contiguous fifth of its series, or -1 on the seam of two folds.

    Neighbouring windows share rows, so those at a seam would let a fold see what it is tested on.
    """
    count = sum(len(piece) for piece in pieces)
    if count < MIN_WINDOWS:
        raise TrainError(
            f"too few rows: {count} clean windows of {config.window} rows, at least {MIN_WINDOWS} are needed; "
            "give more data, a shorter --window or a larger --train-fraction"
        )
    every = -(-count // min(MAX_WINDOWS, MAX_VALUES // max(pieces[0].view[:1].size, 1)))
    taken, folds = [], []
    for piece in pieces:
        taken.append(piece.take(slice(None, None, every)))
        order = np.arange(len(piece))
        fold = order * FOLDS // max(len(piece), 1)
        seam = fold != np.maximum(order - config.window + 1, 0) * FOLDS // max(len(piece), 1)
        folds.append(np.where(seam, -1, fold)[::every])
    return np.concatenate(taken), np.concatenate(folds)


def _cross_fit(
    windows: Floats, folds: NDArray[np.int64], config: Config, progress: Progress
) -> tuple[Detector, Floats]:
    """The detector fitted to all windows, and scores of each fold by one that never saw it."""
    held_out = []
    for fold in range(FOLDS):
        progress("fitting", fold, FOLDS + 1)
        mine, others = folds == fold, (folds != fold) & (folds >= 0)
        if mine.any() and others.any():
            held_out.append(score(fit(windows[others], config.explained_variance), windows[mine])[0])
    progress("fitting", FOLDS, FOLDS + 1)
    detector = fit(windows, config.explained_variance)
    progress("fitting", FOLDS + 1, FOLDS + 1)
    if not held_out:
        raise TrainError("too few rows to hold any out; give more data or a shorter --window")
    return detector, np.concatenate(held_out)


def _parity_rows(detector: Detector, windows: Floats) -> tuple[ParityRow, ...]:
    """Real windows, evenly over the range of scores, the most unusual one included."""
    ranked = np.argsort(score(detector, windows)[0], kind="stable")
    chosen = windows[ranked[np.linspace(0, len(ranked) - 1, PARITY_ROWS).astype(int)]]
    scores, shares = score(detector, chosen)
    return tuple(
        ParityRow(
            window=tuple(tuple(row) for row in window.tolist()),
            score=float(value),
            tolerance=PARITY_TOLERANCE,
            contributions=tuple(share.tolist()),
        )
        for window, value, share in zip(chosen, scores, shares, strict=True)
    )


def _check_graph(model: bytes, parity: Sequence[ParityRow]) -> None:
    """The graph and numpy are two implementations of one formula; a bundle in which they differ is never written."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores, shares = session.run(["score", "contributions"], {"window": np.array([row.window for row in parity])})
    expected = np.array([row.score for row in parity])
    wrong = np.abs(scores - expected) > PARITY_TOLERANCE * np.maximum(1, np.abs(expected))
    if wrong.any() or np.abs(shares - np.array([row.contributions for row in parity])).max() > PARITY_TOLERANCE:
        raise TrainError("the ONNX graph does not reproduce the scores: report this with the data that shows it")


def _newest_time(series: Sequence[Series], trained_rows: Sequence[int]) -> str:
    times = np.concatenate([one.times[:rows] for one, rows in zip(series, trained_rows, strict=True)])
    known = times[times != NO_TIME]
    return format_timestamp(int(known.max()) if len(known) else 0)


def _fingerprint(series: Sequence[Series], trained_rows: Sequence[int]) -> Training:
    """SHA-256 over each series in order: its name and a NUL, its times (int64) and values (float64), little-endian."""
    hasher = hashlib.sha256()
    for one, rows in zip(series, trained_rows, strict=True):
        hasher.update(one.name.encode() + b"\0")
        hasher.update(one.times[:rows].astype("<i8").tobytes())
        hasher.update(one.values[:rows].astype("<f8").tobytes())
    return Training(sum(trained_rows), len(series), "sha256:" + hasher.hexdigest(), TRAINER)
