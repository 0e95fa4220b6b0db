"""What ended up in storage, read back: rows of the lanes with every number as the text it was stored as."""

import gzip
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.storage.blob import ContainerClient

from contract.batch import parse_blob_name, parse_metadata
from contract.lanes import Lane

API_VERSION = "2019-07-07"
_READERS = 8


class Number(str):
    """A JSON number's own text, so that 1.10 is not taken for 1.1."""

    __slots__ = ()


def loads(text: bytes) -> Any:
    """JSON with its numbers as `Number`."""
    return json.loads(text, parse_float=Number, parse_int=Number)


@dataclass
class Storage:
    """Rows per lane as stored, in the order of the blobs' names."""

    blobs: int = 0
    rows: dict[Lane, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, body: bytes) -> None:
        """Raises ValueError when the name is no batch's name, or the body no gzip JSON Lines."""
        lane = parse_blob_name(name).lane
        self.blobs += 1
        self.rows.setdefault(lane, []).extend(read_lines(body))

    def lane(self, lane: Lane) -> list[dict[str, Any]]:
        return self.rows.get(lane, [])


def read_lines(body: bytes) -> Iterator[dict[str, Any]]:
    for line in gzip.decompress(body).splitlines():
        yield loads(line)


def list_blobs(connection_string: str, container: str) -> list[str]:
    """[] while the container does not exist."""
    with _client(connection_string, container) as client:
        return sorted(client.list_blob_names()) if client.exists() else []


@dataclass(frozen=True)
class Listed:
    """A blob as the listing shows it."""

    name: str
    rows: int


def list_rows(connection_string: str, container: str) -> list[Listed]:
    """Every blob with the number of rows that its metadata gives; [] while the container does not exist."""
    with _client(connection_string, container) as client:
        if not client.exists():
            return []
        return [
            Listed(str(blob.name), parse_metadata(blob.metadata or {}).rows)
            for blob in client.list_blobs(include=["metadata"])
        ]


def read_blobs(connection_string: str, container: str, names: Sequence[str], into: Storage) -> None:
    """Several at a time: each costs a round trip."""
    with _client(connection_string, container) as client, ThreadPoolExecutor(_READERS) as readers:
        for name, body in zip(
            names, readers.map(lambda name: client.download_blob(name).readall(), names), strict=True
        ):
            into.add(name, body)


def read_container(connection_string: str, container: str, into: Storage) -> None:
    read_blobs(connection_string, container, list_blobs(connection_string, container), into)


def read_folder(folder: Path, into: Storage) -> None:
    """The lane `rejected` of a directory destination: the same names, as paths."""
    for path in sorted(folder.glob("rejected/**/*.jsonl.gz")):
        into.add(path.relative_to(folder).as_posix(), path.read_bytes())


def rejected_bodies(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each rejected body whole, put together from its parts, with the row of its first part."""
    parts: dict[tuple[object, ...], dict[int, dict[str, Any]]] = {}
    for row in rows:
        count = int(row.get("parts", 1))
        if count == 1:
            yield row, b64decode(row["body_b64"])
            continue
        key = (row["device"], row["module"], row["message"], row.get("i"), row["input"])
        have = parts.setdefault(key, {})
        have[int(row.get("part", 0))] = row
        if len(have) == count:
            del parts[key]
            yield have[0], b"".join(b64decode(have[number]["body_b64"]) for number in range(count))


def _client(connection_string: str, container: str) -> ContainerClient:
    return ContainerClient.from_connection_string(connection_string, container, api_version=API_VERSION, retry_total=3)
