"""Labelled faults, from a column or a file, as spans of rows.

The file is JSON: NAB's `{"folder/file.csv": [[start, end], ...]}`, or a list (or JSON Lines) of objects with `start`,
`end` and optionally `kind` and `series`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from contract.timestamps import parse_timestamp
from trainer.errors import TrainError
from trainer.table import Series


@dataclass(frozen=True)
class Event:
    """A labelled fault: rows first to last (both included) of one series."""

    series: str
    first: int
    last: int
    kind: str


class _Span(msgspec.Struct):
    start: object
    end: object
    kind: str = "anomaly"
    series: str | None = None


def events_from_column(series: Sequence[Series]) -> list[Event]:
    """Runs of rows with the same label."""
    return [event for one in series for event in _runs(one)]


def events_from_file(path: Path, series: Sequence[Series]) -> list[Event]:
    """Raises TrainError when the file cannot be read or names none of the data."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}") from None
    spans = list(_spans(path, raw, series))
    return [event for one in series for span in spans for event in _in_series(path, one, span)]


def _runs(series: Series) -> Iterator[Event]:
    start = 0
    for row in range(1, len(series.labels) + 1):
        if row == len(series.labels) or series.labels[row] != series.labels[start]:
            kind = series.labels[start]
            if kind is not None:
                yield Event(series.name, start, row - 1, kind)
            start = row


def _spans(path: Path, raw: bytes, series: Sequence[Series]) -> Iterator[_Span]:
    try:
        if path.name.endswith((".jsonl", ".ndjson")):
            yield from msgspec.json.Decoder(_Span).decode_lines(raw)
            return
        document = msgspec.json.decode(raw)
        if isinstance(document, dict):
            document = _of_data(path, document, series)
        for item in msgspec.convert(document, list[_Span | tuple[str, str]]):
            yield item if isinstance(item, _Span) else _Span(*item)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: not a file of labels: {error}") from None


def _of_data(path: Path, document: dict[str, object], series: Sequence[Series]) -> object:
    """NAB's file labels many data files; take the one whose path ends as the data's does."""
    names = {one.path.name for one in series}
    found = [key for key in document if key.split("/")[-1] in names]
    if not found:
        raise TrainError(f"{path}: labels none of {', '.join(sorted(names))}")
    if len(found) > 1:
        raise TrainError(f"{path}: labels several files called alike: {', '.join(found)}")
    return document[found[0]]


def _in_series(path: Path, series: Series, span: _Span) -> Iterator[Event]:
    if span.series is not None and span.series != series.name:
        return
    start, end = parse_timestamp(span.start), parse_timestamp(span.end)
    if start is None or end is None:
        raise TrainError(f"{path}: {span.start!r} to {span.end!r} is not a span of time")
    rows = np.flatnonzero((series.times >= start) & (series.times <= end))
    if len(rows):
        yield Event(series.name, int(rows[0]), int(rows[-1]), span.kind)
