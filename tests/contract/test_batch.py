"""How rows lie in storage: names that nothing can break out of, metadata that survives headers, lines that parse."""

import gzip
import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.batch import (
    FUTURE_TOLERANCE_SECS,
    NAME_LIMIT_CHARS,
    UNKNOWN_FOLDER,
    BlobMeta,
    BlobName,
    compress,
    escape_site,
    format_blob_name,
    hour_folder,
    metadata_of,
    parse_blob_name,
    parse_metadata,
    row_prefix,
    sha256_hex,
    stored_lines,
)
from contract.lanes import LANES

NOW = int(datetime(2026, 11, 23, 18, 30, tzinfo=UTC).timestamp()) * 1_000_000
HOUR = 3600 * 1_000_000


def name(site: str = "plant-1", folder: str = "date=2026-11-23/hour=18", batch_no: int = 7) -> BlobName:
    return BlobName("readings", site, folder, "0123456789abcdef", batch_no, "fedcba9876543210")


def test_a_name_reads_as_documented() -> None:
    expected = "readings/site=plant-1/date=2026-11-23/hour=18/0123456789abcdef-7-fedcba9876543210.jsonl.gz"
    assert format_blob_name(name()) == expected


@given(
    lane=st.sampled_from(LANES),
    site=st.text(max_size=60),
    micros=st.none() | st.integers(min_value=-62_135_596_800_000_000, max_value=NOW + 2 * HOUR),
    batch_no=st.integers(min_value=1, max_value=2**62),
)
def test_a_name_comes_back_as_it_was(lane: str, site: str, micros: int | None, batch_no: int) -> None:
    original = BlobName(
        lane,  # type: ignore[arg-type]  # sampled from the lanes
        site,
        hour_folder(micros, now_micros=NOW),
        "ab12",
        batch_no,
        "0" * 16,
    )
    text = format_blob_name(original)
    parsed = parse_blob_name(text)
    if len(escape_site(site)) <= 180:
        assert parsed == original or "~" in text
    assert format_blob_name(parsed) == text


@given(st.text(max_size=400))
def test_no_site_breaks_out_of_its_folder(site: str) -> None:
    text = format_blob_name(name(site=site))
    segments = text.split("/")
    assert len(segments) == 5
    assert segments[1].startswith("site=")
    assert len(segments[1].encode()) <= 255
    assert not segments[1].endswith(".")
    assert len(text) <= NAME_LIMIT_CHARS
    assert text.isascii()
    assert text.isprintable()


def test_two_long_sites_that_begin_alike_have_different_folders() -> None:
    assert escape_site("ä" * 300) != escape_site("ä" * 301)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "readings/site=a/date=2026-11-23/hour=18/ab-0-0123456789abcdef.jsonl.gz",
        "readings/site=a/date=unknown/hour=18/ab-1-0123456789abcdef.jsonl.gz",
        "elsewhere/site=a/date=2026-11-23/hour=18/ab-1-0123456789abcdef.jsonl.gz",
        "readings/site=a/b/date=2026-11-23/hour=18/ab-1-0123456789abcdef.jsonl.gz",
        "readings/site=a/date=2026-11-23/hour=18/ab-1-0123456789abcdef.jsonl.gz\n",
    ],
)
def test_what_is_no_name_of_a_batch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        parse_blob_name(text)


def test_rows_without_a_time_or_far_ahead_have_a_folder_of_their_own() -> None:
    assert hour_folder(None, now_micros=NOW) == UNKNOWN_FOLDER
    assert hour_folder(NOW + FUTURE_TOLERANCE_SECS * 1_000_000 + 1, now_micros=NOW) == UNKNOWN_FOLDER
    assert hour_folder(NOW + HOUR, now_micros=NOW) == "date=2026-11-23/hour=19"
    assert hour_folder(-1, now_micros=NOW) == "date=1969-12-31/hour=23"


@given(policy=st.none() | st.text(min_size=1), model=st.none() | st.text(min_size=1))
def test_metadata_survives_headers(policy: str | None, model: str | None) -> None:
    meta = BlobMeta(policy, model, "ab", 3, 10, "c" * 64, None)
    headers = metadata_of(meta)
    assert all(value.isascii() and value.isprintable() and value for value in headers.values())
    assert all(key.isidentifier() for key in headers)
    if "none" not in (policy, model):
        assert parse_metadata({key.title(): value for key, value in headers.items()}) == meta


def test_metadata_that_lacks_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="policy"):
        parse_metadata({})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=8).filter(lambda k: k not in ("policy", "site", "model")), JSON_VALUES)
    ),
    indent=st.sampled_from([None, 1]),
)
def test_each_row_is_one_line_with_its_envelope_in_front(rows: list[dict[str, object]], indent: int | None) -> None:
    raws = msgspec.json.decode(json.dumps(rows, indent=indent), type=list[msgspec.Raw])
    prefix = row_prefix("readings", policy="p1", site='s"1', model=None)
    lines = stored_lines(prefix, raws)
    parsed = [json.loads(line) for line in lines.split(b"\n")[:-1]]
    assert parsed == [{"policy": "p1", "site": 's"1', "model": None, **row} for row in rows]
    assert lines.endswith(b"\n") or not rows


def test_the_senders_number_text_is_kept() -> None:
    lines = stored_lines(row_prefix("readings", policy="p", site="s", model="m"), [msgspec.Raw(b'{"x":1.10}')])
    assert lines == b'{"policy":"p","site":"s","model":"m","x":1.10}\n'


def test_a_rejected_line_names_only_its_site() -> None:
    assert row_prefix("rejected", policy=None, site="s", model=None) == b'{"site":"s",'


def test_gzip_bytes_are_the_same_for_the_same_data() -> None:
    data = b'{"a":1}\n' * 1000
    packed = compress(data)
    assert packed == compress(data)
    assert packed[4:8] == b"\0\0\0\0"
    assert gzip.decompress(packed) == data
    assert sha256_hex(packed) == sha256_hex(compress(data))
