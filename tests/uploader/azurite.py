"""Azurite for these tests, and what it holds afterwards, read with the SDK and the contract alone."""

import base64
import gzip
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from azure.storage.blob import ContainerClient

from contract.batch import BlobMeta, BlobName, parse_blob_name, parse_metadata, sha256_hex
from simulator.azurite_setup import NODE, entry_point, install
from simulator.project import find_root

API_VERSION = "2019-07-07"
_LISTENS = re.compile(rb"successfully listens on http://[^:]+:(\d+)")


class Azurite(NamedTuple):
    account: str
    key: str
    port: int

    def connection_string(self, port: int | None = None, *, key: str | None = None) -> str:
        """For whoever comes over this port (a proxy's), or with another key."""
        endpoint = f"http://127.0.0.1:{port or self.port}/{self.account}"
        account = f"AccountName={self.account};AccountKey={key or self.key}"
        return f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={endpoint};"

    def container(self, name: str) -> ContainerClient:
        return ContainerClient.from_connection_string(
            self.connection_string(), name, api_version=API_VERSION, retry_total=0
        )


class StoredBlob(NamedTuple):
    name: BlobName
    meta: BlobMeta
    rows: list[dict[str, object]]


@contextmanager
def run_azurite() -> Iterator[Azurite]:
    root = find_root()
    install(root)
    account, key = "edgeweirtest", base64.b64encode(secrets.token_bytes(64)).decode()
    command: list[str | Path] = [NODE, entry_point(root), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    process = subprocess.Popen(
        [*command, "--inMemoryPersistence", "--disableTelemetry", "--silent"],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Azurite(account, key, _port_of(process))
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _LISTENS.search(line):
            return int(found[1])
    raise RuntimeError("Azurite ended before it listened")


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
