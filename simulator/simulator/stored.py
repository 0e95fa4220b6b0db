"""What ended up in storage, read back: rows of the lanes with every number as the text it was stored as."""

import gzip
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.storage.blob import ContainerClient

from contract.batch import BlobMeta, BlobName, parse_blob_name, parse_metadata, sha256_hex
from contract.lanes import Lane

API_VERSION = "2019-07-07"
_READERS = 8


class Number(str):
    """A JSON number's own text, so that 1.10 is not taken for 1.1."""

    __slots__ = ()


def loads(text: bytes) -> Any:
    """JSON with its numbers as `Number`."""
    return json.loads(text, parse_float=Number, parse_int=Number)


@dataclass(frozen=True)
class Batch:
    """One blob or file as found; `path` is its whole name.

    `meta` is None where the destination keeps no metadata, or where it cannot be read: `flaw` says why.
    """

    path: str
    name: BlobName
    meta: BlobMeta | None
    lines: int
    sha256: str
    flaw: str = ""


@dataclass(frozen=True)
class LaneRows:
    """The rows of one lane and spool by batch number and place in the batch, each with its hour folder."""

    lane: Lane
    spool: str
    rows: list[tuple[str, dict[str, Any]]]


@dataclass
class Storage:
    """Rows per lane as stored, in the order of the blobs' names, and the batches that they came in."""

    batches: list[Batch] = field(default_factory=list)
    rows: list[list[dict[str, Any]]] = field(default_factory=list)
    """Per batch."""

    @property
    def blobs(self) -> int:
        return len(self.batches)

    def add(self, path: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Raises ValueError when the path is no batch's name, or the body no gzip JSON Lines."""
        name = parse_blob_name(path)
        rows = list(read_lines(body))
        meta, flaw = None, ""
        try:
            meta = None if metadata is None else parse_metadata(metadata)
        except ValueError as error:
            flaw = str(error)
        self.batches.append(Batch(path, name, meta, len(rows), sha256_hex(body), flaw))
        self.rows.append(rows)

    def lane(self, lane: Lane) -> list[dict[str, Any]]:
        return [
            row for batch, rows in zip(self.batches, self.rows, strict=True) if batch.name.lane == lane for row in rows
        ]

    def sequences(self, lane: Lane) -> list[LaneRows]:
        """One per spool: a spool that was replaced numbers its batches anew."""
        found: dict[str, list[tuple[Batch, list[dict[str, Any]]]]] = {}
        for batch, rows in zip(self.batches, self.rows, strict=True):
            if batch.name.lane == lane:
                found.setdefault(batch.name.spool, []).append((batch, rows))
        return [
            LaneRows(
                lane,
                spool,
                [
                    (batch.name.folder, row)
                    for batch, rows in sorted(members, key=lambda member: member[0].name.batch_no)
                    for row in rows
                ],
            )
            for spool, members in sorted(found.items())
        ]


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


def list_etags(connection_string: str, container: str) -> dict[str, str]:
    """Each blob's name and ETag, which changes with every write to it; {} while the container does not exist."""
    with _client(connection_string, container) as client:
        return {str(blob.name): str(blob.etag) for blob in client.list_blobs()} if client.exists() else {}


def read_blobs(connection_string: str, container: str, names: Sequence[str], into: Storage) -> None:
    """Several at a time: each costs a round trip."""
    with _client(connection_string, container) as client, ThreadPoolExecutor(_READERS) as readers:

        def read(name: str) -> tuple[bytes, Mapping[str, str]]:
            blob = client.download_blob(name)
            return blob.readall(), blob.properties.metadata or {}

        for name, (body, metadata) in zip(names, readers.map(read, names), strict=True):
            into.add(name, body, metadata)


def read_container(connection_string: str, container: str, into: Storage) -> None:
    read_blobs(connection_string, container, list_blobs(connection_string, container), into)


def read_folder(folder: Path, into: Storage) -> None:
    """The lane `rejected` of a directory destination: the same names, as paths."""
    for path in sorted(folder.glob("rejected/**/*.jsonl.gz")):
        into.add(path.relative_to(folder).as_posix(), path.read_bytes())


def rejected_bodies(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each rejected body whole, put together from its parts, with the row of its first part.

    A body of which any part is stored twice comes twice.
    """
    for parts in _by_body(rows):
        if all(parts):
            for copy in range(max(map(len, parts))):
                pieces = [same[min(copy, len(same) - 1)] for same in parts]
                yield pieces[0], b"".join(b64decode(piece["body_b64"]) for piece in pieces)


def incomplete_bodies(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row of each body of which at least one part is not there."""
    for parts in _by_body(rows):
        if not all(parts):
            yield next(same[0] for same in parts if same)


def _by_body(rows: Iterable[dict[str, Any]]) -> Iterable[list[list[dict[str, Any]]]]:
    """Per body, per number of a part: the rows that are that part."""
    bodies: dict[tuple[object, ...], list[list[dict[str, Any]]]] = {}
    for row in rows:
        number = int(row.get("part", 0))
        count = max(int(row.get("parts", 1)), number + 1)
        key = (row["device"], row["module"], row["message"], row.get("i"), row["input"], count)
        parts = bodies.setdefault(key, [[] for _ in range(count)])
        parts[number].append(row)
    return bodies.values()


def _client(connection_string: str, container: str) -> ContainerClient:
    return ContainerClient.from_connection_string(connection_string, container, api_version=API_VERSION, retry_total=3)
