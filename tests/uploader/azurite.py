"""What Azurite holds after a test, read with the SDK and the contract alone."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
from azure.storage.blob import ContainerClient

from contract.batch import BlobMeta, BlobName, parse_blob_name, parse_metadata, sha256_hex
from simulator.azurite import Azurite

API_VERSION = "2019-07-07"


def container_of(azurite: Azurite, name: str) -> ContainerClient:
    return ContainerClient.from_connection_string(
        azurite.connection_string, name, api_version=API_VERSION, retry_total=0
    )


def with_key(azurite: Azurite, key: str) -> str:
    """Its connection string with another key."""
    return replace(azurite.account, key=key).connection_string(azurite.port)


class StoredBlob(NamedTuple):
    name: BlobName
    meta: BlobMeta
    rows: list[dict[str, object]]


def stored_blobs(container: ContainerClient) -> list[StoredBlob]:
    """Every blob, in the order of its number, with its digest checked."""
    found = []
    for properties in container.list_blobs(include=["metadata"]):
        body = container.download_blob(properties.name).readall()
        meta = parse_metadata(properties.metadata)
        name = parse_blob_name(properties.name)
        assert meta.sha256 == sha256_hex(body)
        assert (name.digest, name.spool, name.batch_no) == (meta.sha256[:16], meta.spool, meta.batch_no)
        rows = [msgspec.json.decode(line) for line in gzip.decompress(body).splitlines()]
        assert len(rows) == meta.rows
        found.append(StoredBlob(name, meta, rows))
    return sorted(found, key=lambda blob: (blob.name.lane, blob.meta.spool, blob.meta.batch_no))


def stored_rows(container: ContainerClient, lane: str = "readings") -> list[object]:
    """The `i` of every stored row of a lane, sorted."""
    return sorted(row["i"] for blob in stored_blobs(container) if blob.name.lane == lane for row in blob.rows)  # type: ignore[type-var]


def assert_chain_is_whole(blobs: list[StoredBlob]) -> None:
    """Per lane and spool: numbers from 1 without a gap, and each blob names the one before it."""
    sequences: dict[tuple[str, str], list[BlobMeta]] = {}
    for blob in blobs:
        sequences.setdefault((blob.name.lane, blob.meta.spool), []).append(blob.meta)
    for metas in sequences.values():
        assert [meta.batch_no for meta in metas] == list(range(1, len(metas) + 1))
        assert [meta.previous_sha256 for meta in metas] == [None, *(meta.sha256 for meta in metas[:-1])]


def rows_in_folder(root: Path, lane: str = "rejected") -> list[dict[str, object]]:
    """Every row of a lane that a directory destination keeps, in the order of the names."""
    rows: list[dict[str, object]] = []
    for path in sorted(root.glob(f"{lane}/**/*.jsonl.gz")):
        name = parse_blob_name(path.relative_to(root).as_posix())
        body = path.read_bytes()
        assert name.digest == sha256_hex(body)[:16]
        rows.extend(msgspec.json.decode(line) for line in gzip.decompress(body).splitlines())
    return rows
