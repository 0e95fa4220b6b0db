import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.limits import BODY_LIMIT_BYTES, REJECTED_PART_BYTES
from contract.messages import (
    Model,
    Readings,
    Rejected,
    Run,
    ScoredRow,
    Scores,
    Source,
    Unreadable,
    chunk_by_size,
    decode,
    encode,
    reject,
)

SOURCE = Source(device="pump-1", module="", message="m-1")


def scores() -> Scores:
    row = ScoredRow(
        i=0,
        series="pump-1",
        reading=msgspec.Raw(b'{"t":1.10}'),
        t="2025-11-23T12:00:00Z",
        score=0.5,
        threshold=1.0,
        why=[("t", 1.0)],
    )
    return Scores(model=Model("pump", "1", "sha256:0"), runs=[Run(source=SOURCE, rows=[row])])


def test_a_message_reads_back_with_the_senders_own_number_text() -> None:
    back = decode(Scores, encode(scores()))
    assert back.runs[0].rows[0].score == 0.5
    assert bytes(back.runs[0].rows[0].reading) == b'{"t":1.10}'


def test_the_schema_is_the_first_thing_in_the_body() -> None:
    assert encode(scores()).startswith(b'{"schema":"edgeweir.scores/1",')


def test_what_a_row_does_not_have_is_absent_from_its_text() -> None:
    row = ScoredRow(i=3, series="s", reading=msgspec.Raw(b"{}"), no_score="warm_up")
    assert json.loads(msgspec.json.encode(row)) == {"i": 3, "series": "s", "reading": {}, "no_score": "warm_up"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"{", "not_json"),
        (b"[]", "schema_unsupported"),
        (b"{}", "schema_unsupported"),
        (b'{"schema":7}', "schema_unsupported"),
        (b'{"schema":"edgeweir.scores/2","runs":"other"}', "schema_unsupported"),
        (b'{"schema":"edgeweir.readings/1"}', "schema_unsupported"),
        (b'{"schema":"edgeweir.scores/1","model":null}', "bad_shape"),
        (b'{"schema":"edgeweir.scores/1","model":null,"runs":[{"source":{}}]}', "bad_shape"),
    ],
)
def test_an_unreadable_body_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(Scores, body)
    assert caught.value.reason == reason


def test_a_later_minor_field_is_ignored() -> None:
    body = b'{"schema":"edgeweir.readings/1","policy":"p","site":"s","model":null,"rows":[{"x":1}],"later":true}'
    assert [bytes(row) for row in decode(Readings, body).rows] == [b'{"x":1}']


@given(st.binary(max_size=64) | st.integers(0, 3 * REJECTED_PART_BYTES).map(lambda size: b"\xff" * size))
def test_a_rejected_message_keeps_every_byte_in_parts_that_fit(body: bytes) -> None:
    parts = list(reject(body, reason="not_json", detail="d", source=SOURCE, input_name="telemetry", received="now"))
    assert b"".join(part.body for part in parts) == body
    assert [part.part for part in parts] == list(range(len(parts)))
    assert {part.parts for part in parts} == {len(parts)}
    for part in parts:
        assert len(encode(Rejected(site="s", rows=[part]))) <= BODY_LIMIT_BYTES


@given(st.lists(st.integers(1, 50)), st.integers(0, 20), st.integers(30, 120))
def test_chunks_cover_all_items_in_order_and_fit(sizes: list[int], overhead: int, limit: int) -> None:
    chunks = list(chunk_by_size(sizes, overhead=overhead, limit=limit))
    assert [size for chunk in chunks for size in sizes[chunk]] == sizes
    for chunk in chunks:
        items = sizes[chunk]
        assert items
        assert len(items) == 1 or overhead + sum(items) + len(items) <= limit
    for one, following in itertools.pairwise(chunks):
        assert overhead + sum(sizes[one]) + len(sizes[one]) + sizes[following.start] + 1 > limit
