"""Readings from files: CSV (`timestamp,value`, NAB's form) and JSON Lines (one reading a line, as devices send them).

A file, or a folder of them in the order of their names. Rows keep their order; a CSV column is a field of the reading,
so both forms give the same JSON pointers. A line that is no reading is counted, not guessed at.
"""

import csv
import gzip
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from contract.bundle import feature_number
from trainer.errors import TrainError

CSV_SUFFIXES = (".csv", ".csv.gz")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")

Reading = Mapping[str, object]
Advance = Callable[[int], None]  # told how many bytes of input have been read


@dataclass
class Source:
    """One file's readings, in order."""

    path: Path
    readings: list[Reading] = field(default_factory=list)
    bad_lines: int = 0


def find_files(data: Path) -> list[Path]:
    """Raises TrainError when there is nothing to read."""
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise TrainError(f"{data}: no such file or folder; name a CSV or JSON Lines file, or a folder of them")
    files = sorted(path for path in data.rglob("*") if path.name.endswith((*CSV_SUFFIXES, *JSON_SUFFIXES)))
    if not files:
        wanted = ", ".join((*CSV_SUFFIXES, *JSON_SUFFIXES))
        raise TrainError(f"{data}: the folder holds no data; expected files ending in {wanted}")
    return files


def read_file(path: Path, advance: Advance = lambda _: None) -> Source:
    """Raises TrainError when the file cannot be read or is no text."""
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            lines = _counted(text, raw, advance)
            return _read_csv(path, lines) if path.name.endswith(CSV_SUFFIXES) else _read_json(path, lines)
    except (OSError, EOFError) as error:
        raise TrainError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainError(f"{path}: not a UTF-8 CSV or JSON Lines file: {error}") from None


def csv_value(text: str) -> object:
    """A CSV cell as JSON would have it: a finite number where it reads as one, null when empty, else the text."""
    text = text.strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    # Python also reads "1_000", "nan" and "inf"; no sender means those as a measurement.
    return number if math.isfinite(number) and "_" not in text else None


def number(value: object) -> float:
    """The value as a feature, NaN where it is missing."""
    found = feature_number(value)
    return math.nan if found is None else found


def _read_csv(path: Path, lines: Iterable[str]) -> Source:
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if not header:
        raise TrainError(f"{path}: the file is empty")
    if len(set(header)) != len(header):
        raise TrainError(f"{path}: two columns have the same name; rename one of them")
    source = Source(path)
    for row in rows:
        if len(row) == len(header):
            source.readings.append({name: csv_value(cell) for name, cell in zip(header, row, strict=True)})
        elif row:
            source.bad_lines += 1
    return source


def _read_json(path: Path, lines: Iterable[str]) -> Source:
    decode = msgspec.json.Decoder().decode
    source = Source(path)
    for line in lines:
        if not line.strip():
            continue
        try:
            reading = decode(line)
        except msgspec.DecodeError:
            reading = None
        if isinstance(reading, dict):
            source.readings.append(reading)
        else:
            source.bad_lines += 1
    if not source.readings and source.bad_lines:
        raise TrainError(f"{path}: no line is a JSON object; expected one reading a line")
    return source


def _counted(lines: Iterable[str], raw: io.BufferedReader, advance: Advance) -> Iterator[str]:
    told = 0
    for number_, line in enumerate(lines):
        yield line
        if number_ % 10_000 == 0:
            advance(raw.tell() - told)
            told = raw.tell()
    advance(raw.tell() - told)
