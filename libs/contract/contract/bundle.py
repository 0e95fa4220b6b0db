"""The model bundle: a model, and everything that must travel with it so that its scores mean the same everywhere.

A bundle is a folder, or a zip of it:

    manifest.json    what the model expects and what its numbers mean; lists every other file with its SHA-256
    model.onnx       window [batch, length, features] -> score [batch], contributions [batch, features]
    parity.jsonl     golden windows with the scores that any runtime must reproduce
    reference.json   sketches of the training features, for drift (optional)
    model.sig        a signature over all of it (optional; the one file that the manifest does not list)

A bundle is immutable. Its digest is the SHA-256 of manifest.json's bytes: that file names every other digest, so it
stands for the whole. Every fault is one BundleError that says what is wrong and what to do. Nothing here reads a file
(`contract.bundle_zip` has the zip, over bytes).
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from contract.pointer import parse_pointer
from contract.timestamps import parse_timestamp

MANIFEST_FILE: Final = "manifest.json"
PARITY_FILE: Final = "parity.jsonl"
REFERENCE_FILE: Final = "reference.json"
SIGNATURE_FILE: Final = "model.sig"

MANIFEST_LIMIT_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 64
MAX_FEATURES: Final = 256
MAX_WINDOW_ROWS: Final = 4096
MAX_WINDOW_VALUES: Final = 65_536
MAX_PARITY_ROWS: Final = 10_000

Dtype = Literal["float64", "float32"]
MissingRule = Literal["no_score", "hold_last", "constant"]

BundleErrorCode = Literal[
    "bundle_unreadable", "bundle_manifest", "bundle_files", "bundle_parity", "bundle_model", "bundle_digest"
]
# What to do, per code; `contract.reasons` says the same to operators.
ACTIONS: Final[dict[BundleErrorCode, str]] = {
    "bundle_unreadable": "give a folder or zip with manifest.json, as `edgeweir train` writes it",
    "bundle_manifest": "correct the named key and write the bundle again",
    "bundle_files": "the bundle was changed or copied in part: copy it again from where it was made",
    "bundle_parity": "the runtime does not reproduce the trainer's scores: train with the versions that serve",
    "bundle_model": "export the model with the inputs and outputs that the manifest names",
    "bundle_digest": "mount the pinned bundle, or pin this one",
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class BundleError(Exception):
    """A bundle that must not be used. `code` is the reason code; the text ends with what to do."""

    def __init__(self, code: BundleErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}; {ACTIONS[code]}")
        self.code: BundleErrorCode = code
        self.detail = detail


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of a reading. `missing` says what a reading without it does:

    `no_score` leaves the row out of every window, `hold_last` takes the value of the series' row before it (and is
    `no_score` where there is none), `constant` takes `fill`.
    """

    name: str
    pointer: str
    unit: str = ""
    dtype: Dtype = "float64"  # the value is rounded to it before it enters the window
    missing: MissingRule = "no_score"
    fill: float | None = None


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    length: int  # rows, the newest last
    stride: int = 1  # rows from one scored window to the next


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ONNX graph's interface. `contributions` may be null: then no row says why."""

    file: str = "model.onnx"
    dtype: Dtype = "float64"  # of the input tensor
    input: str = "window"
    score: str = "score"
    contributions: str | None = "contributions"
    meaning: str = ""  # of the score, in a sentence


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row is an anomaly when its score is greater than `value`. `rule` tells how the value was set."""

    value: float
    rule: str


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which data the model was fitted to: `sha256` is over the values used, as the trainer documents."""

    rows: int
    series: int
    sha256: str
    trainer: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="schema", tag="edgeweir.bundle/1"):
    name: str
    version: str
    created: str
    features: tuple[Feature, ...]
    max_gap_secs: float
    window: Window
    model: ModelFile
    threshold: Threshold
    training: Training
    files: dict[str, str]  # path in the bundle -> "sha256:" and 64 hex characters
    timestamp_pointer: str | None = None
    series_pointer: str | None = None  # null: the device id names the series


class ParityRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window and what must come out of it, within `tolerance` (relative above 1, absolute below)."""

    window: tuple[tuple[float, ...], ...]
    score: float
    tolerance: float
    contributions: tuple[float, ...] | None = None


class Bundle(msgspec.Struct, frozen=True):
    """A verified bundle. `files` holds every listed file's bytes; `signature` is null where there is none."""

    manifest: Manifest
    digest: str
    parity: tuple[ParityRow, ...]
    files: Mapping[str, bytes]
    signature: bytes | None = None

    @property
    def model_bytes(self) -> bytes:
        return self.files[self.manifest.model.file]

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "Bundle":
        """Check everything that can be checked without running the model. Raises BundleError."""
        raw = files.get(MANIFEST_FILE)
        if raw is None:
            raise BundleError("bundle_unreadable", f"there is no {MANIFEST_FILE}")
        manifest = decode_manifest(raw)
        listed = _verified_files(manifest, files)
        return cls(
            manifest=manifest,
            digest=sha256_digest(raw),
            parity=tuple(_parity_rows(manifest, listed[PARITY_FILE])),
            files=listed,
            signature=files.get(SIGNATURE_FILE),
        )


def sha256_digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def feature_number(value: object) -> float | None:
    """What a JSON value is worth as a feature, or None when it is missing.

    Only finite JSON numbers count. A boolean, a text (even of digits), null, and an integer beyond float's range are
    missing: to guess what a sender meant would score something that nobody measured.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def encode_manifest(manifest: Manifest) -> bytes:
    """Readable, and equal bytes for equal manifests."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(raw: bytes) -> Manifest:
    """Raises BundleError with the path of the offending key."""
    if len(raw) > MANIFEST_LIMIT_BYTES:
        raise BundleError("bundle_unreadable", f"{MANIFEST_FILE} is larger than {MANIFEST_LIMIT_BYTES} bytes")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.ValidationError as error:
        raise BundleError("bundle_manifest", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError("bundle_unreadable", f"{MANIFEST_FILE} is not JSON: {error}") from None
    for fault in _manifest_faults(manifest):
        raise BundleError("bundle_manifest", fault)
    return manifest


def encode_parity(rows: tuple[ParityRow, ...]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def is_safe_path(path: str) -> bool:
    """True for a relative path with forward slashes that stays inside its folder on every system."""
    if not path or len(path) > 255 or "\\" in path or ":" in path or not path.isprintable():
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _verified_files(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    unlisted = sorted(files.keys() - manifest.files.keys() - {MANIFEST_FILE, SIGNATURE_FILE})
    if unlisted:
        raise BundleError("bundle_files", f"{unlisted[0]} is not listed in {MANIFEST_FILE}")
    for path, expected in sorted(manifest.files.items()):
        if path not in files:
            raise BundleError("bundle_files", f"{path} is listed but missing")
        found = sha256_digest(files[path])
        if found != expected:
            raise BundleError("bundle_files", f"{path} has digest {found}, the manifest says {expected}")
    return {path: files[path] for path in sorted(manifest.files)}


def _parity_rows(manifest: Manifest, raw: bytes) -> Iterator[ParityRow]:
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if not 1 <= len(lines) <= MAX_PARITY_ROWS:
        raise BundleError("bundle_parity", f"{PARITY_FILE} has {len(lines)} rows, 1 to {MAX_PARITY_ROWS} are allowed")
    for number, line in enumerate(lines, start=1):
        try:
            row = msgspec.json.decode(line, type=ParityRow)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BundleError("bundle_parity", f"{PARITY_FILE} line {number}: {error}") from None
        width = len(manifest.features)
        if len(row.window) != manifest.window.length or any(len(values) != width for values in row.window):
            shape = f"{manifest.window.length} rows of {width} values"
            raise BundleError("bundle_parity", f"{PARITY_FILE} line {number}: the window is not {shape}")
        if row.contributions is not None and len(row.contributions) != width:
            raise BundleError("bundle_parity", f"{PARITY_FILE} line {number}: not {width} contributions")
        if not 0 <= row.tolerance <= 1:
            raise BundleError("bundle_parity", f"{PARITY_FILE} line {number}: the tolerance is not within 0 to 1")
        yield row


def _manifest_faults(manifest: Manifest) -> Iterator[str]:
    for key in ("name", "version"):
        if not _NAME.match(getattr(manifest, key)):
            yield f"$.{key}: 1 to 128 letters, digits and . _ + - are allowed"
    if parse_timestamp(manifest.created) is None:
        yield "$.created: not a time (RFC 3339)"
    yield from _feature_faults(manifest.features)
    for key in ("timestamp_pointer", "series_pointer"):
        yield from _pointer_faults(f"$.{key}", getattr(manifest, key))
    if not 0 < manifest.max_gap_secs <= 1e9:
        yield "$.max_gap_secs: must be above 0 and at most 1e9"
    yield from _window_faults(manifest)
    if not math.isfinite(manifest.threshold.value):
        yield "$.threshold.value: must be a finite number"
    if manifest.training.rows < 0 or manifest.training.series < 0:
        yield "$.training: counts cannot be negative"
    yield from _file_list_faults(manifest)


def _feature_faults(features: tuple[Feature, ...]) -> Iterator[str]:
    if not 1 <= len(features) <= MAX_FEATURES:
        yield f"$.features: 1 to {MAX_FEATURES} features are allowed"
    names: set[str] = set()
    for index, feature in enumerate(features):
        path = f"$.features[{index}]"
        if not feature.name or len(feature.name) > 128 or not feature.name.isprintable():
            yield f"{path}.name: 1 to 128 printable characters are allowed"
        if feature.name in names:
            yield f"{path}.name: {feature.name!r} is there twice"
        names.add(feature.name)
        yield from _pointer_faults(f"{path}.pointer", feature.pointer)
        if (feature.fill is not None) != (feature.missing == "constant"):
            yield f"{path}.fill: given exactly when `missing` is `constant`"
        if feature.fill is not None and not math.isfinite(feature.fill):
            yield f"{path}.fill: must be a finite number"


def _pointer_faults(path: str, pointer: str | None) -> Iterator[str]:
    if pointer is None:
        return
    try:
        tokens = parse_pointer(pointer)
    except ValueError as error:
        yield f"{path}: {error}"
        return
    if not tokens:
        yield f"{path}: the pointer must name a field, not the whole reading"


def _window_faults(manifest: Manifest) -> Iterator[str]:
    window = manifest.window
    if not 1 <= window.length <= MAX_WINDOW_ROWS:
        yield f"$.window.length: 1 to {MAX_WINDOW_ROWS} rows are allowed"
    if not 1 <= window.stride <= MAX_WINDOW_ROWS:
        yield f"$.window.stride: 1 to {MAX_WINDOW_ROWS} rows are allowed"
    if window.length * len(manifest.features) > MAX_WINDOW_VALUES:
        yield f"$.window.length: a window may hold at most {MAX_WINDOW_VALUES} values"


def _file_list_faults(manifest: Manifest) -> Iterator[str]:
    if len(manifest.files) > MAX_FILES:
        yield f"$.files: at most {MAX_FILES} files are allowed"
    for path, digest in manifest.files.items():
        if not is_safe_path(path) or path in (MANIFEST_FILE, SIGNATURE_FILE):
            yield f"$.files: {path!r} is not a relative path of a file in the bundle"
        if not _DIGEST.match(digest):
            yield f"$.files: the digest of {path!r} is not sha256: and 64 hex characters"
    for needed in (manifest.model.file, PARITY_FILE):
        if needed not in manifest.files:
            yield f"$.files: {needed!r} is missing from the list"
