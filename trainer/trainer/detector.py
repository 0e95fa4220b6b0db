"""A windowed PCA detector: Hotelling's T² and the squared prediction error, as process monitoring uses them.

A window of `length` rows of `features` becomes one vector `v` of

- its standardised values (median and interquartile range, so that a few outliers in the training data do not matter),
  oldest row first, and
- per feature, its roughness: the logarithm of the mean absolute step within the window. A stuck sensor may show a
  perfectly plausible level for hours; what gives it away is that its noise is gone.

`v` is centred and scaled to `y`, and split by the leading principal directions P (n x k, variances λ):

    t = yP            T²  = Σ t²/λ            how unusual the window is in the ways the machine usually varies
    e = y - tPᵀ       SPE = Σ e²              how far it leaves those ways: broken correlations

Each is divided by its limit, the 99 % point of the training windows, and the score is the greater of the two: a fault
shows in one of them, and a sum would dilute it with the noise of the other. The limits are empirical; the parametric
ones (F distribution for T², Jackson & Mudholkar, "Control procedures for residuals associated with principal
component analysis", Technometrics 21, 1979, for SPE) suppose normal data, which loads and set-points are not.

Contributions are the complete decomposition (Alcala & Qin, "Analysis and generalization of fault diagnosis methods for
process monitoring", J. Process Control 21, 2011) of the combined index T²/limit + SPE/limit (Yue & Qin 2001):

    c = (e / √SPE_limit + P λ^-1/2 t / √T²_limit)²        per element, then summed per feature

The two terms are orthogonal, so c sums to the index, is never negative, and a feature's share is a real share. Taken
from the leading statistic alone, a broken sensor smears over those that go with it; on simulated pumps the combined
form names the right sensor in 93 % of shifted and all dropped-out windows, the leading one in 80 %. The contribution
plots of Miller, Swanson and Heckler (1998) are the older form, with negative terms.

Everything here is numpy in float64. `trainer.graph` writes the same arithmetic as ONNX, and the bundle's parity rows
come from here: two implementations must agree before a bundle is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainError

Floats = NDArray[np.float64]

# Below this share of its usual roughness a feature counts as flat; keeps the logarithm finite.
FLAT = 1e-3
# A standardised value beyond it says no more; keeps squares of any finite input finite.
CLIP = 1e6
# Roughness of a feature that never changed has no spread of its own.
MIN_ROUGHNESS_SPREAD = 0.05
LIMIT_QUANTILE = 0.99
# Windows left out of the second fit: the most unusual ones may be faults that nobody labelled.
TRIM = 0.01
MAX_ELEMENTS = 4096
TINY = 1e-300


@dataclass(frozen=True)
class Detector:
    """A fitted detector. Shapes: f features, n = length * f + f elements, k directions."""

    length: int
    median: Floats  # (f,)
    inverse_scale: Floats  # (f,)
    inverse_step: Floats  # (f,) 1 / usual mean absolute step of the standardised values
    mean: Floats  # (n,)
    inverse_spread: Floats  # (n,)
    directions: Floats  # (n, k)
    inverse_root_variance: Floats  # (k,) λ^-1/2
    t2_limit: float
    spe_limit: float
    explained: float  # share of the variance that the k directions carry

    @property
    def features(self) -> int:
        return len(self.median)


def fit(windows: Floats, explained_variance: float) -> Detector:
    """Fit to windows (batch, length, features), then once more without the most unusual hundredth of them."""
    first = _fit_once(windows, explained_variance)
    scores, _ = score(first, windows)
    kept = windows[scores <= np.quantile(scores, 1 - TRIM)]
    return _fit_once(kept, explained_variance)


def score(detector: Detector, windows: Floats) -> tuple[Floats, Floats]:
    """Scores (batch,) and shares (batch, features) that sum to 1."""
    scores = np.empty(len(windows))
    shares = np.empty((len(windows), detector.features))
    for part in _parts(len(windows)):
        scores[part], shares[part] = _score_part(detector, windows[part])
    return scores, shares


def _score_part(detector: Detector, windows: Floats) -> tuple[Floats, Floats]:
    standardised = _standardise(windows, detector.median, detector.inverse_scale)
    elements = _elements(standardised, detector.inverse_step)
    centred = (elements - detector.mean) * detector.inverse_spread
    t2, spe, usual, residual = _split(centred, detector.directions, detector.inverse_root_variance)
    t2_ratio, spe_ratio = t2 / detector.t2_limit, spe / detector.spe_limit
    along = usual @ detector.directions.T
    parts = (residual * detector.spe_limit**-0.5 + along * detector.t2_limit**-0.5) ** 2
    values = parts[:, : -detector.features].reshape(windows.shape).sum(axis=1) + parts[:, -detector.features :]
    shares = (values + TINY) / (values.sum(axis=1, keepdims=True) + TINY * detector.features)
    return np.maximum(t2_ratio, spe_ratio), shares


def _fit_once(windows: Floats, explained_variance: float) -> Detector:
    _, length, features = windows.shape
    n = (length + 1) * features
    if n > MAX_ELEMENTS:
        raise TrainError(f"{features} features in windows of {length} rows are too many; shorten --window")
    newest = windows[:, -1, :]
    median = np.median(newest, axis=0)
    inverse_scale = 1 / _scale(newest, median)
    steps = np.concatenate(
        [_steps(_standardise(windows[part], median, inverse_scale)) for part in _parts(len(windows))]
    )
    inverse_step = 1 / np.array([_usual(column) for column in steps.T])

    mean, covariance = _moments(windows, median, inverse_scale, inverse_step)
    inverse_spread = np.ones(n)
    roughness_spread = np.sqrt(np.diag(covariance)[-features:])
    inverse_spread[-features:] = 1 / np.maximum(roughness_spread, MIN_ROUGHNESS_SPREAD)
    variances, vectors = np.linalg.eigh(covariance * np.outer(inverse_spread, inverse_spread))
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    k = _directions_kept(variances, explained_variance)
    detector = Detector(
        length=length,
        median=median,
        inverse_scale=inverse_scale,
        inverse_step=inverse_step,
        mean=mean,
        inverse_spread=inverse_spread,
        directions=np.ascontiguousarray(_signed(vectors[:, :k])),
        inverse_root_variance=1 / np.sqrt(variances[:k]),
        t2_limit=1.0,
        spe_limit=1.0,
        explained=float(variances[:k].sum() / variances.sum()),
    )
    return _with_limits(detector, windows)


def _with_limits(detector: Detector, windows: Floats) -> Detector:
    statistics = []
    for part in _parts(len(windows)):
        standardised = _standardise(windows[part], detector.median, detector.inverse_scale)
        centred = (_elements(standardised, detector.inverse_step) - detector.mean) * detector.inverse_spread
        t2, spe, _, _ = _split(centred, detector.directions, detector.inverse_root_variance)
        statistics.append(np.stack([t2, spe]))
    t2_limit, spe_limit = np.quantile(np.concatenate(statistics, axis=1), LIMIT_QUANTILE, axis=1)
    # Residuals of data that the directions explain whole are rounding noise: nothing to divide by.
    floor = 1e-9 * len(detector.mean)
    return Detector(
        **{**detector.__dict__, "t2_limit": max(float(t2_limit), floor), "spe_limit": max(float(spe_limit), floor)}
    )


def _standardise(windows: Floats, median: Floats, inverse_scale: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.clip((windows - median) * inverse_scale, -CLIP, CLIP)


def _steps(standardised: Floats) -> Floats:
    return np.asarray(np.abs(standardised[:, 1:] - standardised[:, :-1]).mean(axis=1))


def _elements(standardised: Floats, inverse_step: Floats) -> Floats:
    roughness = np.log(_steps(standardised) * inverse_step + FLAT)
    return np.concatenate([standardised.reshape(len(standardised), -1), roughness], axis=1)


def _split(centred: Floats, directions: Floats, inverse_root: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """T², SPE, the whitened coordinates along the directions, and the residual."""
    along = centred @ directions
    residual = centred - along @ directions.T
    whitened = along * inverse_root
    return (whitened**2).sum(axis=1), (residual**2).sum(axis=1), whitened, residual


def _moments(windows: Floats, median: Floats, inverse_scale: Floats, inverse_step: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of the elements, a part of the windows at a time."""
    n = (windows.shape[1] + 1) * windows.shape[2]
    total = np.zeros(n)
    for part in _parts(len(windows)):
        total += _elements(_standardise(windows[part], median, inverse_scale), inverse_step).sum(axis=0)
    mean = total / len(windows)
    scatter = np.zeros((n, n))
    for part in _parts(len(windows)):
        centred = _elements(_standardise(windows[part], median, inverse_scale), inverse_step) - mean
        scatter += centred.T @ centred
    return mean, scatter / max(len(windows) - 1, 1)


def _scale(values: Floats, median: Floats) -> Floats:
    """Interquartile range as a standard deviation; else the standard deviation; else a hundredth of the level."""
    quartiles = np.percentile(values, [75, 25], axis=0)
    robust = (quartiles[0] - quartiles[1]) / 1.349
    spread = np.where(robust > 0, robust, values.std(axis=0))
    level = np.maximum(np.abs(median), 1e-9)
    # A spread that is only rounding of a constant is no spread.
    constant = np.where(median != 0, 0.01 * level, 1.0)
    return np.asarray(np.where(spread > 1e-12 * level, spread, constant))


def _usual(steps: Floats) -> float:
    moving = steps[steps > 0]
    return float(np.median(moving)) if len(moving) else 1.0


def _directions_kept(variances: Floats, explained_variance: float) -> int:
    """Enough directions for the wanted share, at least one, and never one of pure rounding noise nor all of them."""
    # Standardised values have a variance near 1; what is left of constants is rounding.
    if variances[0] <= 1e-12:
        raise TrainError("no feature ever changes: there is nothing to learn")
    share = np.cumsum(variances) / variances.sum()
    k = int(np.searchsorted(share, explained_variance)) + 1
    usable = int((variances > 1e-9 * variances[0]).sum())
    return max(1, min(k, usable, len(variances) - 1))


def _signed(vectors: Floats) -> Floats:
    """An eigenvector's sign is arbitrary; fixing it keeps equal data equal bytes across libraries."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1.0, 1.0)


def _parts(count: int, size: int = 8192) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
