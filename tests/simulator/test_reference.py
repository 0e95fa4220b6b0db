import json
from typing import Any

import pytest

from contract.bundle import Feature
from simulator.delivery import Message
from simulator.errors import UserError
from simulator.oracle import ExpectedRow, RowId
from simulator.reference import LanePolicy, Reference, rounded
from simulator.stored import Number, loads
from tests.simulator.models import spread_bundle

POLICY = """
fields:
  - {path: /value, class: operational, transform: keep, lanes: [readings]}
  - {path: /fine, class: operational, transform: round, decimals: 2, lanes: [readings, insights]}
  - {path: /elsewhere, class: operational, transform: keep, lanes: [anomalies]}
  - {path: /operator, class: personal, transform: drop}
"""


def row(t: float, value: object, machine: str = "m", **more: object) -> dict[str, object]:
    return {"ts": t, "machine": machine, "value": value, **more}


def message(number: int, *rows: object) -> Message:
    texts = tuple(json.dumps(row) for row in rows)
    return Message(f"d-{number}", f"[{','.join(texts)}]".encode(), texts)


def run(*messages: Message, **bundle: Any) -> Reference:
    reference = Reference(spread_bundle(**bundle), POLICY)
    for each in messages:
        reference.take("d", each)
    return reference


def scores(reference: Reference) -> list[object]:
    return [row.no_score or row.score for row in reference.expected.rows.values()]


def test_windows_fill_slide_and_span_messages() -> None:
    reference = run(message(1, row(1, 1), row(2, 2)), message(2, row(3, 4), row(4, 10)))
    assert scores(reference) == ["warm_up", "warm_up", 3.0, 8.0]
    assert [row.anomaly for row in reference.expected.rows.values()] == [False, False, False, True]


def test_a_gap_in_either_direction_starts_the_window_anew() -> None:
    reference = run(message(1, *(row(t, 1) for t in (1, 2, 3, 14, 15, 16, 5, 6, 6))))
    assert scores(reference) == ["warm_up", "warm_up", 0.0, "gap", "warm_up", 0.0, "gap", "warm_up", 0.0]


def test_series_have_windows_of_their_own() -> None:
    rows = [row(t, value, machine) for t in (1, 2, 3) for machine, value in (("a", 1), ("b", t))]
    reference = run(message(1, *rows))
    assert scores(reference) == ["warm_up"] * 4 + [0.0, 2.0]


def test_a_row_without_a_machine_belongs_to_its_device() -> None:
    reference = run(message(1, {"ts": 1, "value": 1}))
    assert reference.expected.rows[RowId("d", "d-1", 0)].series == "d"


def test_stride_counts_from_one_scored_window_to_the_next() -> None:
    reference = run(message(1, *(row(t, t) for t in range(8))), stride=2)
    assert scores(reference) == ["warm_up", "warm_up", 2.0, "stride", 2.0, "stride", 2.0, "stride"]


def test_a_row_with_a_missing_feature_is_in_no_window() -> None:
    rows = [row(1, 1), row(2, 2), row(3, None), row(4, 3), row(5, "9")]
    assert scores(run(message(1, *rows))) == ["warm_up", "warm_up", "missing_feature", 2.0, "missing_feature"]


def test_missing_values_are_held_or_filled_as_the_bundle_says() -> None:
    hold = (Feature("value", "/value", missing="hold_last"),)
    assert scores(run(message(1, *(row(t, v) for t, v in enumerate((None, 1, None, 4)))), features=hold)) == [
        "missing_feature",
        "warm_up",
        "warm_up",
        3.0,
    ]
    fill = (Feature("value", "/value", missing="constant", fill=7.0),)
    assert scores(run(message(1, *(row(t, v) for t, v in enumerate((1, None, 4)))), features=fill))[2] == 6.0


def test_a_held_value_is_that_of_the_row_before_it_in_its_window() -> None:
    two = (Feature("value", "/value", missing="hold_last"), Feature("other", "/other"))

    def held(*rows: tuple[float, object, object]) -> list[object]:
        return scores(run(message(1, *(row(t, value, other=other) for t, value, other in rows)), features=two))

    # The second row is in no window, because of its other feature: its 9 is never held.
    assert held((1, 1, 1), (2, 9, None), (3, None, 1), (4, 1, 1)) == ["warm_up", "missing_feature", "warm_up", 0.0]
    # Nothing is held over a gap, and a row that is in no window does not begin a new one.
    assert held((1, 1, 1), (2, 1, 1), (50, None, 1), (3, 1, 1)) == ["warm_up", "warm_up", "missing_feature", 0.0]


def test_a_window_of_one_row_knows_no_gap() -> None:
    assert scores(run(message(1, row(1, 1), row(100, 2)), length=1)) == [0.0, 0.0]


def test_devices_that_name_the_same_machine_have_windows_of_their_own() -> None:
    reference = Reference(spread_bundle(), POLICY)
    for number in (1, 2, 3):
        for device, value in (("d", 1), ("e", number)):
            reference.take(device, message(number, row(number, value)))
    assert scores(reference) == ["warm_up"] * 4 + [0.0, 2.0]
    assert [expected.index for expected in reference.expected.rows.values()] == [0, 0, 1, 1, 2, 2]


def test_a_value_that_overflows_its_type_is_missing() -> None:
    single = (Feature("value", "/value", dtype="float32"),)
    assert scores(run(message(1, row(1, 1e300)), features=single)) == ["missing_feature"]


def test_rows_carry_their_time_and_the_threshold_of_their_score() -> None:
    reference = run(message(1, *({"value": 1, "ts": ts} for ts in (1, "2026-11-23T18:00:00.5+01:00", "x"))))
    assert [(row.t, row.threshold) for row in reference.expected.rows.values()] == [
        ("1970-01-01T00:00:01Z", None),
        ("2026-11-23T17:00:00.500000Z", None),
        (None, None),
    ]
    assert [row.threshold for row in run(message(1, row(1, 1)), length=1).expected.rows.values()] == [5.0]


def test_the_envelope_is_what_the_policy_names_and_the_verdict_unless_it_is_denied() -> None:
    text = """
envelope:
  device: {class: operational, transform: keep, lanes: [readings]}
  message: {class: operational, transform: keep, lanes: [anomalies]}
  score: {class: operational, transform: drop}
"""
    assert LanePolicy(text, "readings").envelope == {"device", "threshold", "anomaly", "no_score", "why"}


def test_a_message_that_is_taken_again_changes_nothing() -> None:
    first = message(1, row(1, 1), row(2, 2))
    once, twice = run(first), run(first, first)
    assert once.expected == twice.expected


def test_the_same_id_with_another_body_is_another_message() -> None:
    reference = run(message(1, row(1, 1)), message(1, row(1, 1), row(2, 2)))
    assert len(reference.expected.rows) == 2


def test_poison_is_expected_with_its_bytes_and_spoils_nothing_else() -> None:
    whole = Message("d-1", b"\x00 not json", ())
    scalar = Message("d-2", b"17", ())
    mixed = message(3, row(1, 1), 17, row(2, 2))
    reference = run(whole, scalar, mixed)
    assert reference.expected.rejected == {
        RowId("d", "d-1", None): b"\x00 not json",
        RowId("d", "d-2", None): b"17",
        RowId("d", "d-3", 1): b"17",
    }
    assert set(reference.expected.rows) == {RowId("d", "d-3", 0), RowId("d", "d-3", 2)}
    assert reference.expected.sent == 5


def test_a_single_object_is_row_zero() -> None:
    reference = run(Message("d-1", b'{"ts":1,"machine":"m","value":1.10}', ("x",)))
    assert reference.expected.rows == {
        RowId("d", "d-1", 0): ExpectedRow(
            "m", 0, {"value": Number("1.10")}, None, "warm_up", False, "1970-01-01T00:00:01Z", None, (), {}, ()
        )
    }


def test_only_named_fields_pass_and_numbers_keep_their_text() -> None:
    reading = loads(b'{"value":1.10,"fine":2.345,"elsewhere":1,"operator":"x","unnamed":3}')
    assert LanePolicy(POLICY, "readings").apply(reading) == {"value": "1.10", "fine": "2.34"}
    assert LanePolicy(POLICY, "readings").apply(loads(b'{"fine":"text","value":null}')) == {"value": None}


@pytest.mark.parametrize(
    ("text", "decimals", "expected"),
    [("2.345", 2, "2.34"), ("2.355", 2, "2.36"), ("-0.001", 2, "0.00"), ("7", 1, "7.0"), ("1e2", 0, "100")],
)
def test_rounding_is_half_to_even_on_the_digits_as_written(text: str, decimals: int, expected: str) -> None:
    assert rounded(Number(text), decimals) == expected


def test_a_policy_beyond_the_reference_is_refused() -> None:
    with pytest.raises(UserError, match="knows no rule like /a bucket"):
        LanePolicy("fields: [{path: /a, transform: bucket, lanes: [readings]}]", "readings")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\x00", "not_json"),
        (b'[{"ts":1},', "not_json"),
        (b"NaN", "not_json"),
        (b"17", "not_a_reading"),
        (b'"text"', "not_a_reading"),
        (b"null", "not_a_reading"),
    ],
)
def test_a_body_that_is_no_reading_is_rejected_for_what_it_is(body: bytes, reason: str) -> None:
    assert run(Message("d-1", body, ())).expected.reasons == {RowId("d", "d-1", None): reason}


def test_an_element_that_is_no_object_is_no_reading() -> None:
    assert run(Message("d-1", b'[17,{"ts":1}]', ())).expected.reasons == {RowId("d", "d-1", 0): "not_a_reading"}
