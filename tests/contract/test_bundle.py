"""A bundle is taken whole or refused with a code, a place and what to do."""

import math
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.bundle import (
    ACTIONS,
    MANIFEST_FILE,
    PARITY_FILE,
    SIGNATURE_FILE,
    Bundle,
    BundleError,
    Feature,
    Manifest,
    ModelFile,
    ParityRow,
    Threshold,
    Training,
    Window,
    encode_manifest,
    encode_parity,
    feature_number,
    is_safe_path,
    sha256_digest,
)
from contract.bundle_zip import files_from_zip, files_to_zip

PARITY = encode_parity((ParityRow(window=((1.0, 2.0), (3.0, 4.0)), score=0.5, tolerance=1e-9),))


def make_files(**changes: Any) -> dict[str, bytes]:
    contents = {"model.onnx": b"onnx", PARITY_FILE: PARITY} | changes.pop("contents", {})
    fields: dict[str, Any] = {
        "name": "pump",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "features": (Feature("a", "/a"), Feature("b", "/b/0", missing="constant", fill=1.0)),
        "max_gap_secs": 5.0,
        "window": Window(length=2),
        "model": ModelFile(),
        "threshold": Threshold(1.0, "given"),
        "training": Training(rows=2, series=1, sha256="sha256:" + "0" * 64),
        "files": {path: sha256_digest(content) for path, content in contents.items()},
        "timestamp_pointer": "/t",
    }
    return {MANIFEST_FILE: encode_manifest(Manifest(**(fields | changes))), **contents}


def with_manifest(**values: object) -> dict[str, bytes]:
    """The same files with keys of the manifest's JSON replaced, whatever their type."""
    files = make_files()
    manifest = msgspec.json.decode(files[MANIFEST_FILE]) | values
    return files | {MANIFEST_FILE: msgspec.json.encode(manifest)}


def refusal(files: dict[str, bytes]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        Bundle.from_files(files)
    assert ACTIONS[caught.value.code] in str(caught.value)
    return caught.value


def test_whole_bundle_is_accepted_and_its_digest_is_that_of_the_manifest() -> None:
    files = make_files()
    bundle = Bundle.from_files(files)
    assert bundle.digest == sha256_digest(files[MANIFEST_FILE])
    assert bundle.model_bytes == b"onnx"
    assert bundle.parity[0].window == ((1.0, 2.0), (3.0, 4.0))
    assert bundle.signature is None


def test_equal_manifests_encode_to_equal_bytes() -> None:
    assert make_files() == make_files()


def test_signature_is_the_one_file_that_need_not_be_listed() -> None:
    assert Bundle.from_files(make_files() | {SIGNATURE_FILE: b"sig"}).signature == b"sig"


def test_unlisted_file_is_refused() -> None:
    error = refusal(make_files() | {"extra.txt": b""})
    assert (error.code, "extra.txt" in error.detail) == ("bundle_files", True)


def test_missing_file_is_refused() -> None:
    files = make_files()
    del files["model.onnx"]
    assert refusal(files).code == "bundle_files"


def test_changed_file_is_refused() -> None:
    assert refusal(make_files() | {"model.onnx": b"onny"}).code == "bundle_files"


def test_bundle_without_manifest_is_unreadable() -> None:
    assert refusal({"model.onnx": b""}).code == "bundle_unreadable"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 5000])
def test_manifest_that_is_not_json_is_unreadable(raw: bytes) -> None:
    assert refusal(make_files() | {MANIFEST_FILE: raw}).code in ("bundle_unreadable", "bundle_manifest")


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"schema": "edgeweir.bundle/2"}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"name": "../x"}, "$.name"),
        ({"name": 3}, "$.name"),
        ({"created": "yesterday"}, "$.created"),
        ({"features": []}, "$.features"),
        ({"features": [{"name": "a", "pointer": "a"}]}, "$.features[0].pointer"),
        ({"features": [{"name": "a", "pointer": ""}]}, "$.features[0].pointer"),
        ({"features": [{"name": "a", "pointer": "/a"}, {"name": "a", "pointer": "/b"}]}, "$.features[1].name"),
        ({"features": [{"name": "a", "pointer": "/a", "missing": "constant"}]}, "$.features[0].fill"),
        ({"features": [{"name": "a", "pointer": "/a", "fill": 1}]}, "$.features[0].fill"),
        ({"features": [{"name": "a", "pointer": "/a", "dtype": "int8"}]}, "$.features[0].dtype"),
        ({"timestamp_pointer": "/a~"}, "$.timestamp_pointer"),
        ({"series_pointer": "pump"}, "$.series_pointer"),
        ({"max_gap_secs": 0}, "$.max_gap_secs"),
        ({"window": {"length": 0}}, "$.window.length"),
        ({"window": {"length": 2, "stride": 0}}, "$.window.stride"),
        ({"window": {"length": 4097}}, "$.window.length"),
        ({"threshold": {"value": None, "rule": ""}}, "$.threshold.value"),
        ({"files": {"../model.onnx": "sha256:" + "0" * 64}}, "$.files"),
        ({"files": {"model.onnx": "md5:0"}}, "$.files"),
        ({"files": {"model.onnx": "sha256:" + "0" * 64}}, "$.files"),
    ],
)
def test_bad_manifest_key_is_named(values: dict[str, object], place: str) -> None:
    error = refusal(with_manifest(**values))
    assert error.code == "bundle_manifest"
    assert place in error.detail


@pytest.mark.parametrize(
    "parity",
    [
        b"",
        b"not json\n",
        b'{"window": [[1, 2]], "score": 0, "tolerance": 0}\n',
        b'{"window": [[1], [2]], "score": 0, "tolerance": 0}\n',
        b'{"window": [[1, 2], [3, 4]], "score": 0, "tolerance": 2}\n',
        b'{"window": [[1, 2], [3, 4]], "score": 0, "tolerance": 0, "contributions": [1]}\n',
    ],
)
def test_parity_rows_must_fit_the_window(parity: bytes) -> None:
    assert refusal(make_files(contents={PARITY_FILE: parity})).code == "bundle_parity"


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**62), 2**62))
def test_finite_number_is_a_feature(value: float) -> None:
    assert feature_number(value) == float(value)


@pytest.mark.parametrize("value", [None, True, False, "1.5", [], {}, math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_finite_number_is_missing(value: object) -> None:
    assert feature_number(value) is None


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a\\b", "c:a", "a\nb", "a" * 300])
def test_unsafe_path_is_seen(path: str) -> None:
    assert not is_safe_path(path)


def test_zip_gives_back_the_files_with_or_without_a_top_folder() -> None:
    files = make_files()
    assert files_from_zip(files_to_zip(files)) == files
    assert files_from_zip(files_to_zip({f"pump-1/{path}": content for path, content in files.items()})) == files


def test_equal_files_zip_to_equal_bytes() -> None:
    assert files_to_zip(make_files()) == files_to_zip(dict(reversed(make_files().items())))


@pytest.mark.parametrize("path", ["../manifest.json", "/manifest.json", "a/../../manifest.json", "a\\b"])
def test_zip_entry_outside_its_folder_is_refused(path: str) -> None:
    with pytest.raises(BundleError, match="unsafe path"):
        files_from_zip(files_to_zip({path: b"{}"}))


def test_zip_bomb_is_refused_by_what_really_inflates() -> None:
    data = files_to_zip({"a": b"\0" * 1_000_000, "b": b"\0" * 1_000_000})
    assert len(data) < 10_000
    with pytest.raises(BundleError, match="inflates to more than"):
        files_from_zip(data, limit=1_500_000)


def test_zip_with_too_many_entries_is_refused() -> None:
    with pytest.raises(BundleError, match="files"):
        files_from_zip(files_to_zip({str(number): b"" for number in range(100)}))


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_torn_zip_is_a_bundle_error(noise: bytes, at: int) -> None:
    whole = files_to_zip({MANIFEST_FILE: b"{}" * 50})
    cut = at % len(whole)
    data = whole[:cut] + noise + whole[cut + len(noise) :]
    with suppress(BundleError):
        files_from_zip(data)
