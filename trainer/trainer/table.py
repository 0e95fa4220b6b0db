"""From readings to series: which field is the time, which names the machine, which are features.

What is chosen here goes into the manifest as JSON pointers, so the scorer reads the same fields the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.pointer import MISSING, parse_pointer, resolve
from contract.timestamps import parse_timestamp
from trainer.data import Reading, Source, number
from trainer.detector import Floats
from trainer.errors import TrainError

TIMESTAMP_NAMES = ("timestamp", "time", "t", "ts", "datetime", "date")
SERIES_NAMES = ("series", "machine", "asset", "equipment", "device")
LABEL_NAMES = ("label", "anomaly", "is_anomaly", "fault")
# A field is taken for a feature when at least this share of the rows has a number there.
NUMERIC_SHARE = 0.9
# Microseconds of a row without a readable time.
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Columns:
    """Which fields play which part. Pointers, except for the features' names."""

    features: tuple[tuple[str, str], ...]  # (name, pointer)
    timestamp: str
    series: str | None
    label: str | None


@dataclass(frozen=True)
class Series:
    """One machine's rows in order of arrival. Shapes: r rows, f features."""

    name: str
    path: Path
    times: NDArray[np.int64]  # (r,) microseconds since 1970, NO_TIME where unreadable
    values: Floats  # (r, f), NaN where missing
    labels: tuple[str | None, ...]  # the kind of fault each row is labelled with


def pointer_of(name: str) -> str:
    """A field's name as a pointer; what starts with '/' is one already. Raises TrainError."""
    pointer = name if name.startswith("/") else "/" + name.replace("~", "~0").replace("/", "~1")
    try:
        parse_pointer(pointer)
    except ValueError as error:
        raise TrainError(str(error)) from None
    return pointer


def choose_columns(
    sources: Sequence[Source],
    *,
    features: Sequence[str] = (),
    timestamp: str | None = None,
    series: str | None = None,
    label: str | None = None,
) -> Columns:
    """What was named, else what the fields' names and values suggest. Raises TrainError."""
    readings = [reading for source in sources for reading in source.readings]
    if not readings:
        raise TrainError("the data has no readable row")
    where = sources[0].path
    fields = list(dict.fromkeys(name for reading in readings[:1000] for name in reading))
    timestamp_pointer = _named_or_known(readings, fields, timestamp, TIMESTAMP_NAMES, "timestamp")
    if timestamp_pointer is None:
        raise TrainError(
            f"{where}: no timestamp column; name one with --timestamp (there are: {', '.join(fields[:20])})"
        )
    if all(parse_timestamp(_at(reading, timestamp_pointer)) is None for reading in readings[:1000]):
        raise TrainError(f"{where}: {timestamp_pointer[1:]!r} holds no readable time; name another with --timestamp")
    series_pointer = _named_or_known(readings, fields, series, SERIES_NAMES, "series")
    label_pointer = _named_or_known(readings, fields, label, LABEL_NAMES, "label")
    taken = {timestamp_pointer, series_pointer, label_pointer, *map(pointer_of, LABEL_NAMES)}
    chosen = [(name.removeprefix("/"), pointer_of(name)) for name in features]
    if not chosen:
        chosen = [
            (name, pointer_of(name))
            for name in fields
            if pointer_of(name) not in taken and _numeric_share(readings, pointer_of(name)) >= NUMERIC_SHARE
        ]
    if not chosen:
        raise TrainError(f"{where}: no numeric column; name the features with --features")
    for name, pointer in chosen:
        if _numeric_share(readings, pointer) == 0:
            raise TrainError(f"{where}: the feature {name!r} has no number in any row; correct --features")
    if len(dict(chosen)) != len(chosen):
        raise TrainError("a feature is named twice in --features")
    return Columns(tuple(chosen), timestamp_pointer, series_pointer, label_pointer)


def to_series(sources: Sequence[Source], columns: Columns) -> list[Series]:
    """Rows of one machine together, in order of arrival. Without a series field, a file is a machine."""
    tokens = [parse_pointer(pointer) for _, pointer in columns.features]
    timestamp = parse_pointer(columns.timestamp)
    label = parse_pointer(columns.label) if columns.label is not None else None
    grouped: dict[str, tuple[Path, list[Reading]]] = {}
    for source in sources:
        for reading in source.readings:
            grouped.setdefault(_series_name(reading, columns, source), (source.path, []))[1].append(reading)
    result = []
    for name, (path, readings) in grouped.items():
        times = [parse_timestamp(resolve(reading, timestamp)) for reading in readings]
        result.append(
            Series(
                name=name,
                path=path,
                times=np.array([NO_TIME if time is None else time for time in times], dtype=np.int64),
                values=np.array([[number(resolve(reading, token)) for token in tokens] for reading in readings]),
                labels=tuple(None if label is None else label_kind(resolve(reading, label)) for reading in readings),
            )
        )
    return result


def label_kind(value: object) -> str | None:
    """The kind of fault that a label names, or None for a normal row."""
    if value is MISSING or value is None or value is False:
        return None
    if isinstance(value, str):
        return None if value.strip().lower() in ("", "0", "false", "no", "none", "normal", "ok") else value.strip()
    if value is True or isinstance(value, int | float):
        return "anomaly" if value else None
    return "anomaly"


def _at(reading: Reading, pointer: str) -> object:
    return resolve(reading, parse_pointer(pointer))


def _named_or_known(
    readings: Sequence[Reading], fields: Sequence[str], named: str | None, known: Sequence[str], option: str
) -> str | None:
    if named is not None:
        pointer = pointer_of(named)
        if all(_at(reading, pointer) is MISSING for reading in readings[:1000]):
            raise TrainError(f"no row has {named!r}; correct --{option} (there are: {', '.join(fields[:20])})")
        return pointer
    lowered = {name.lower(): name for name in reversed(fields)}
    return next((pointer_of(lowered[name]) for name in known if name in lowered), None)


def _numeric_share(readings: Sequence[Reading], pointer: str) -> float:
    tokens = parse_pointer(pointer)
    present = sum(number(resolve(reading, tokens)) == number(resolve(reading, tokens)) for reading in readings)
    return present / len(readings)


def _series_name(reading: Reading, columns: Columns, source: Source) -> str:
    if columns.series is None:
        return source.path.name
    value = _at(reading, columns.series)
    return source.path.name if value is MISSING or value is None else str(value)
