"""How rows lie in storage: the name of a blob, its metadata, its lines. Pure; the uploader writes it, readers parse it.

Name: `{lane}/site={site}/date={YYYY-MM-DD}/hour={HH}/{spool}-{batch_no}-{sha256:16}.{format}`. Hive-style, so that
Spark and DuckDB prune it; date and hour come from the rows, never from the time of sending. Rows without a readable
time, or with one that lies in the far future, are in `date=unknown/hour=unknown`: every name has the same partition
keys, because DuckDB refuses a set of files in which they differ.

Within one (spool, lane, destination) `batch_no` counts from 1 without a gap, and the metadata of each blob names the
SHA-256 of the one before it.

A line is the row's own JSON text with `policy`, `site` and `model` (its digest) spliced in front, ended by a newline.
Lines of the `rejected` lane carry only `site`: no policy and no model ever saw them.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from contract.lanes import LANES, Lane

# Azure Stack Hub's limit (Azure allows 1,024).
NAME_LIMIT_CHARS: Final = 880
JSONL_GZ: Final = "jsonl.gz"
UNKNOWN_FOLDER: Final = "date=unknown/hour=unknown"
# A device whose clock is a little fast is common; one that is days ahead is wrong and would open folders for ever.
FUTURE_TOLERANCE_SECS: Final = 24 * 3600
# Stands for "there is none" in metadata, where an empty value is not allowed.
NONE: Final = "none"
# Keys that the splice adds. A row must not have them itself: readers would differ on which of the two counts.
SPLICED_KEYS: Final = ("policy", "site", "model")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SITE_LIMIT_CHARS = 200  # a file name may have 255 bytes on most file systems
_GZIP_WBITS = 31
_QUOTE = ord('"')
_NAME = re.compile(
    r"(?P<lane>[a-z]+)/site=(?P<site>[^/]*)/date=(?P<date>\d{4}-\d\d-\d\d|unknown)/hour=(?P<hour>\d\d|unknown)"
    r"/(?P<spool>[0-9a-f]+)-(?P<batch_no>[1-9]\d*)-(?P<digest>[0-9a-f]{16})\.(?P<format>[a-z]+(?:\.[a-z]+)?)"
)


class BlobName(msgspec.Struct, frozen=True):
    """What a name says. `folder` is its `date=…/hour=…`; `digest` the first 16 hex digits of the body's SHA-256."""

    lane: Lane
    site: str
    folder: str
    spool: str
    batch_no: int
    digest: str
    format: str = JSONL_GZ


class BlobMeta(msgspec.Struct, frozen=True):
    """What a blob's metadata says about its body, and about the blob before it in the same sequence."""

    policy: str | None
    model: str | None
    spool: str
    batch_no: int
    rows: int
    sha256: str
    previous_sha256: str | None


def hour_folder(micros: int | None, *, now_micros: int) -> str:
    """The folder of a row of this time (microseconds since 1970, None: unreadable)."""
    if micros is None or micros > now_micros + FUTURE_TOLERANCE_SECS * 1_000_000:
        return UNKNOWN_FOLDER
    text = (_EPOCH + timedelta(microseconds=micros)).isoformat()
    return f"date={text[:10]}/hour={text[11:13]}"


def format_blob_name(name: BlobName) -> str:
    """The text of a name. A site can hold any characters: they are escaped, so it cannot leave its folder."""
    folder = f"{name.lane}/site={escape_site(name.site)}/{name.folder}"
    return f"{folder}/{name.spool}-{name.batch_no}-{name.digest}.{name.format}"


def parse_blob_name(text: str) -> BlobName:
    """The reverse of format_blob_name (a site that was too long comes back shortened). Raises ValueError."""
    found = _NAME.fullmatch(text)
    if found is None or found["lane"] not in LANES or (found["date"] == "unknown") != (found["hour"] == "unknown"):
        raise ValueError(f"not the name of a batch: {text!r}")
    return BlobName(
        lane=found["lane"],
        site=unquote(found["site"]),
        folder=f"date={found['date']}/hour={found['hour']}",
        spool=found["spool"],
        batch_no=int(found["batch_no"]),
        digest=found["digest"],
        format=found["format"],
    )


def escape_site(site: str) -> str:
    """Percent-encoded as Hive and Spark do it; an over-long one keeps its beginning and gets a digest."""
    escaped = quote(site, safe="", errors="replace")
    if len(escaped) > _SITE_LIMIT_CHARS:
        head = quote(site[: _SITE_LIMIT_CHARS // 12 - 2], safe="", errors="replace")  # 4 UTF-8 bytes, 3 chars each
        escaped = f"{head}~{sha256(site.encode(errors='replace')).hexdigest()[:16]}"
    # Storage services drop dots at the end of a path segment.
    return escaped[:-1] + "%2E" if escaped.endswith(".") else escaped


def metadata_of(meta: BlobMeta) -> dict[str, str]:
    """Metadata as HTTP headers take it: identifiers as keys, ASCII as values."""
    return {
        "policy": _header_value(meta.policy),
        "model": _header_value(meta.model),
        "spool": meta.spool,
        "batch_no": str(meta.batch_no),
        "rows": str(meta.rows),
        "sha256": meta.sha256,
        "previous_sha256": meta.previous_sha256 or NONE,
    }


def parse_metadata(metadata: Mapping[str, str]) -> BlobMeta:
    """The reverse of metadata_of; keys in any case, because services change it. Raises ValueError."""
    found = {key.lower(): value for key, value in metadata.items()}
    try:
        return BlobMeta(
            policy=_from_header(found["policy"]),
            model=_from_header(found["model"]),
            spool=found["spool"],
            batch_no=int(found["batch_no"]),
            rows=int(found["rows"]),
            sha256=found["sha256"],
            previous_sha256=_from_header(found["previous_sha256"]),
        )
    except KeyError as error:
        raise ValueError(f"metadata lacks {error.args[0]!r}") from None


def _header_value(value: str | None) -> str:
    return NONE if value is None else quote(value, safe=":", errors="replace")


def _from_header(value: str) -> str | None:
    return None if value == NONE else unquote(value)


def row_prefix(lane: Lane, *, policy: str | None, site: str, model: str | None) -> bytes:
    """What is spliced in front of every row of a batch: the opening brace, the envelope, a comma."""
    envelope: dict[str, str | None] = {"site": site}
    if lane != "rejected":
        envelope = {"policy": policy, "site": site, "model": model}
    return msgspec.json.encode(envelope)[:-1] + b","


def stored_lines(prefix: bytes, rows: Iterable[msgspec.Raw]) -> bytes:
    """The lines of these rows, each a JSON object's text that the decoder has checked."""
    lines = []
    for raw in rows:
        row = bytes(raw)
        if b"\n" in row or b"\r" in row:
            # Inside a JSON text line breaks stand between tokens only: a string would have to escape them.
            row = row.replace(b"\n", b" ").replace(b"\r", b" ")
        # A quote right after the brace is the first key's; only an object without keys takes no comma.
        if row[1] == _QUOTE or row[1:-1].strip():
            lines.append(prefix + row[1:])
        else:
            lines.append(prefix[:-1] + b"}")
    return b"\n".join(lines) + b"\n" if lines else b""


def compress(data: bytes) -> bytes:
    """Gzip (RFC 1952) without name or time of making: the same data give the same bytes in the same zlib."""
    packer = zlib.compressobj(wbits=_GZIP_WBITS)
    return packer.compress(data) + packer.flush()


def sha256_hex(body: bytes) -> str:
    return sha256(body).hexdigest()


def content_md5(body: bytes) -> bytes:
    """What the storage service compares with what arrived; not a protection against malice."""
    return md5(body, usedforsecurity=False).digest()
