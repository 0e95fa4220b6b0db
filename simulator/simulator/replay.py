"""Replay of a CSV file as it lies there: one row, one reading, in the file's order, under the file's own column names.

Times may repeat or run backward, as they do in real logs; they are sent as they stand. A number keeps its text. NAB's
labelled windows are found beside the file (`labels/combined_windows.json` above `data/`).
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contract.timestamps import parse_timestamp
from simulator.errors import UserError

_TIME_COLUMNS: Final = ("timestamp", "ts", "time", "datetime", "date", "t")
# RFC 8259, section 6: text that may stand in JSON as a number.
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_LABELS = Path("labels/combined_windows.json")


@dataclass(frozen=True)
class ReplayRow:
    """`text` is the JSON that is sent; `ts_micros` is None where the file's time cannot be read."""

    index: int
    ts_micros: int | None
    text: str


@dataclass(frozen=True)
class LabelledWindow:
    """A stretch of time in which someone who knew the machine saw something wrong. Both ends are included."""

    first_micros: int
    last_micros: int

    def covers(self, micros: int | None) -> bool:
        return micros is not None and self.first_micros <= micros <= self.last_micros


@dataclass(frozen=True)
class Replay:
    """A file ready to be sent. `columns` are those with numbers."""

    path: Path
    time_column: str
    columns: tuple[str, ...]
    rows: tuple[ReplayRow, ...]
    windows: tuple[LabelledWindow, ...]

    @property
    def name(self) -> str:
        """Names the machine that the file came from."""
        return self.path.stem


def read_replay(path: Path) -> Replay:
    """Raises UserError in one line: no such file, no header, no timestamp column, no number, a row of another width."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            time_column = find_time_column(header, path)
            records = list(_records(lines, header, path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from None
    numeric = tuple(
        name
        for column, name in enumerate(header)
        if name != time_column and any(_JSON_NUMBER.fullmatch(record[column]) for record in records)
    )
    if not numeric:
        raise UserError(f"{path}: no column holds numbers, so there is nothing to score")
    time_index = header.index(time_column)
    rows = tuple(
        ReplayRow(index, parse_timestamp(record[time_index]), _as_json(header, record))
        for index, record in enumerate(records)
    )
    return Replay(path, time_column, numeric, rows, find_windows(path))


def find_time_column(header: list[str], path: Path) -> str:
    by_lower = {name.lower(): name for name in reversed(header)}
    for name in _TIME_COLUMNS:
        if name in by_lower:
            return by_lower[name]
    found = ", ".join(header) or "an empty file"
    raise UserError(f"{path}: no timestamp column (found: {found}); name it {' or '.join(_TIME_COLUMNS[:3])}")


def find_windows(path: Path) -> tuple[LabelledWindow, ...]:
    """NAB's labels for this file; () when there are none beside it."""
    here = path.resolve()
    for folder in here.parents:
        labels, data = folder / _LABELS, folder / "data"
        if labels.is_file() and data in here.parents:
            known = json.loads(labels.read_text(encoding="utf-8"))
            return tuple(_windows(known.get(here.relative_to(data).as_posix(), [])))
    return ()


def _windows(pairs: list[list[str]]) -> Iterator[LabelledWindow]:
    for first, last in pairs:
        first_micros, last_micros = parse_timestamp(first), parse_timestamp(last)
        if first_micros is not None and last_micros is not None:
            yield LabelledWindow(first_micros, last_micros)


def _records(lines: Iterator[list[str]], header: list[str], path: Path) -> Iterator[list[str]]:
    for number, record in enumerate(lines, start=2):
        if not record:
            continue
        if len(record) != len(header):
            raise UserError(f"{path}:{number}: {len(record)} values under {len(header)} column names")
        yield [value.strip() for value in record]


def _as_json(header: list[str], record: list[str]) -> str:
    """An empty cell is a field that the reading lacks."""
    parts = [
        f"{json.dumps(name)}:{value if _JSON_NUMBER.fullmatch(value) else json.dumps(value)}"
        for name, value in zip(header, record, strict=True)
        if value
    ]
    return "{" + ",".join(parts) + "}"
