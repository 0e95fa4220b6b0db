"""What a lane message is to the spool."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.batch import UNKNOWN_FOLDER, hour_folder
from contract.messages import Unreadable
from contract.timestamps import parse_timestamp
from tests.uploader.lane_messages import MODEL, POLICY, START_MICROS, anomalies, numbered, readings, rejected, row
from uploader.accept import Group, lines_of, portions_of

TIMES = st.one_of(
    st.none(),
    st.integers(START_MICROS // 10**6 - 7200, START_MICROS // 10**6 + 7200),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.integers(0, 7200).map(lambda secs: f"2026-11-18T{10 + secs // 3600}:{secs % 3600 // 60:02}:{secs % 60:02}Z"),
    st.sampled_from(["soon", " ", "2026-11-18T11:59:60Z", "2026-11-18T23:30:00+14:00", True, {"a": 1}]),
)


@given(st.lists(TIMES, max_size=8))
def test_every_row_lies_in_the_folder_of_its_own_time_in_its_order(times: list[object]) -> None:
    body = readings(row(i, t=t) for i, t in enumerate(times))
    expected: dict[str, list[int]] = {}
    for i, t in enumerate(times):
        folder = hour_folder(parse_timestamp(t), now_micros=START_MICROS)
        expected.setdefault(folder, []).append(i)
    found = {}
    for portion in portions_of("readings", body, now_micros=START_MICROS):
        lines = lines_of(portion.group, [portion.body]).splitlines()
        assert len(lines) == portion.rows
        assert portion.group not in found
        found[portion.group.folder] = [json.loads(line)["i"] for line in lines]
    assert found == expected


def test_a_message_of_one_hour_is_kept_as_it_came() -> None:
    body = numbered(0, 3).replace(b'"rows":[', b'"rows" : [\n ')
    (portion,) = portions_of("readings", body, now_micros=START_MICROS)
    assert portion.body is body
    assert portion.group == Group("readings", "date=2026-11-18/hour=11", "site", POLICY, MODEL.digest)


def test_a_rejected_part_lies_in_the_hour_it_was_received() -> None:
    (portion,) = portions_of("rejected", rejected(), now_micros=START_MICROS)
    assert portion.group == Group("rejected", "date=2026-11-18/hour=11", "site", "", "")
    (line,) = lines_of(portion.group, [portion.body]).splitlines()
    assert list(json.loads(line))[:2] == ["site", "reason"]


def test_a_message_without_rows_leaves_nothing() -> None:
    assert portions_of("readings", readings([]), now_micros=START_MICROS) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\xff{}", "not_json"),
        (b"[]", "schema_unsupported"),
        (b"{}", "schema_unsupported"),
        (anomalies([]), "schema_unsupported"),
        (numbered(0, 1).replace(b"readings/1", b"readings/2"), "schema_unsupported"),
        (numbered(0, 1).replace(b'"rows"', b'"rats"'), "bad_shape"),
        (readings([msgspec.Raw(b"1")]), "bad_shape"),
        (readings([msgspec.Raw(b"[]"), row(1, t="soon")]), "bad_shape"),
        (readings([row(0, site="elsewhere")]), "bad_shape"),
        (readings([row(0, site=None)]), "bad_shape"),
        (readings([row(0), row(1, t=None, model="m")]), "bad_shape"),
        (numbered(0, 1)[:-1], "not_json"),
        (numbered(0, 1).replace(b"pump-1", b"pump-\xff"), "not_json"),
        (readings([msgspec.Raw(b'{"t":' + b"[" * 9999 + b"]" * 9999 + b"}")]), "not_json"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        portions_of("readings", body, now_micros=START_MICROS)
    assert caught.value.reason == reason


def test_rows_without_a_readable_time_share_a_folder() -> None:
    body = readings([row(0, t=None), row(1, t="soon")])
    (portion,) = portions_of("readings", body, now_micros=START_MICROS)
    assert (portion.group.folder, portion.rows) == (UNKNOWN_FOLDER, 2)
