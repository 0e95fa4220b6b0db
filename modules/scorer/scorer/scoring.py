"""From rows to scored rows, and from scored rows to message bodies. Pure but for the model's session.

The windows of one message go through the model in one call: a call costs more than a window.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from contract.messages import Model, NoScore, ScoredRow, Source, chunk_by_size
from contract.timestamps import format_timestamp
from scorer.model import LoadedModel, round_score
from scorer.readings import Row
from scorer.series import Floats, SeriesState, advance

WHY_FEATURES = 3

_ENCODE = msgspec.json.Encoder().encode


def score_rows(
    model: LoadedModel, rows: Sequence[Row], state_of: Callable[[str], SeriesState]
) -> tuple[list[ScoredRow], dict[str, SeriesState]]:
    """A scored row per row, in order, and the state of each series that the rows touched."""
    by_series: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        by_series.setdefault(row.series, []).append(position)
    reasons: list[NoScore | None] = [None] * len(rows)
    states: dict[str, SeriesState] = {}
    scored: list[int] = []
    windows: list[Floats] = []
    for series, positions in by_series.items():
        before = state_of(series)
        step = advance(model.layout, before, [rows[position] for position in positions])
        if step.state is not before:
            states[series] = step.state
        for position, reason in zip(positions, step.reasons, strict=True):
            reasons[position] = reason
            if reason is None:
                scored.append(position)
        if len(step.windows):
            windows.append(step.windows)
    result = [_unscored(row, reason) for row, reason in zip(rows, reasons, strict=True)]
    if scored:
        _fill_scores(model, result, scored, windows)
    return result, states


def unscored_rows(rows: Sequence[Row], reason: NoScore) -> list[ScoredRow]:
    return [_unscored(row, reason) for row in rows]


def bodies(model: Model | None, source: Source, rows: Sequence[ScoredRow]) -> Iterator[bytes]:
    """`edgeweir.scores/1` messages of one input's rows, each within the limit."""
    encoded = [_ENCODE(row) for row in rows]
    prefix, suffix = _envelope(model, source)
    for part in chunk_by_size([len(row) for row in encoded], overhead=len(prefix) + len(suffix)):
        yield prefix + b",".join(encoded[part]) + suffix


def message_overhead(model: Model | None, source: Source) -> int:
    """What a message needs beside its rows."""
    return sum(map(len, _envelope(model, source)))


def _envelope(model: Model | None, source: Source) -> tuple[bytes, bytes]:
    head = b'{"schema":"edgeweir.scores/1","model":' + _ENCODE(model)
    return head + b',"runs":[{"source":' + _ENCODE(source) + b',"rows":[', b"]}]}"


def _unscored(row: Row, reason: NoScore | None) -> ScoredRow:
    return ScoredRow(
        i=row.i,
        series=row.series,
        reading=msgspec.Raw(row.text),
        t=None if row.micros is None else format_timestamp(row.micros),
        no_score=reason,
    )


def _fill_scores(model: LoadedModel, rows: list[ScoredRow], scored: Sequence[int], windows: Sequence[Floats]) -> None:
    threshold = model.manifest.threshold.value
    scores, shares = model.score(np.concatenate(windows) if len(windows) > 1 else windows[0])
    for position, (at, score) in enumerate(zip(scored, scores, strict=True)):
        row = rows[at]
        if score is None:
            row.no_score = "not_finite"
            continue
        row.score = score
        row.threshold = threshold
        row.anomaly = score > threshold
        if row.anomaly and shares is not None:
            row.why = _reasons(model.feature_names, shares[position])


def _reasons(names: Sequence[str], shares: Floats) -> list[tuple[str, float]]:
    """The features with the largest shares, largest first; equal shares in the manifest's order."""
    ranked = np.argsort(-shares, kind="stable")[:WHY_FEATURES]
    found = [(names[index], round_score(float(shares[index]))) for index in ranked]
    return [(name, share) for name, share in found if share]
