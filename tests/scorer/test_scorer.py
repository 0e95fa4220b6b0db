"""The module on a bench: a real store, a real ONNX session, everything but the hub."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contract.bundle import Bundle, Feature, Threshold, Window
from contract.bundle_zip import files_to_zip
from contract.limits import BODY_LIMIT_BYTES
from contract.messages import Scores, decode
from scorer.series import Layout
from tests.scorer.bench import make_bench, reading, rejected, scored, send
from tests.scorer.models import bundle_files, weighted_sum_onnx, weights_of, write_folder


def series_of(count: int, start: int = 0) -> list[dict[str, object]]:
    return [reading(start + i, a=float(start + i), b=1.0) for i in range(count)]


# Scores


def test_window_is_scored_as_soon_as_it_is_full(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = scored(send(bench, series_of(4), "1", device="d"))
    assert [row.no_score for row in rows] == ["warm_up", "warm_up", None, None]
    expected = (np.array([[1, 1], [2, 1], [3, 1]]) * weights_of(3, 2)).sum()
    assert rows[3].score == float(f"{expected:.9g}")
    assert rows[3].threshold == 1e6
    assert (rows[0].t, rows[0].series) == ("1970-01-01T00:00:00Z", "m")


def test_message_names_its_model_and_source(tmp_path: Path) -> None:
    files = bundle_files()
    bench = make_bench(tmp_path, files)
    result = send(bench, reading(1), "7", device="d", created="2026-01-01T00:00:00Z")
    message = decode(Scores, result.emitted[0].body)
    assert message.model is not None
    assert message.model.digest == Bundle.from_files(files).digest
    source = message.runs[0].source
    assert (source.device, source.module, source.message, source.enqueued) == ("d", "", "7", "2026-01-01T00:00:00Z")


def test_anomaly_says_why_and_a_normal_row_does_not(tmp_path: Path) -> None:
    features = tuple(Feature(name, f"/{name}") for name in "abcd")
    bench = make_bench(tmp_path, bundle_files(length=1, features=features, threshold=Threshold(10.0, "given")))
    low = {"t": 1, "a": 0.1, "b": 0.0, "c": 0.0, "d": 0.0}
    high = {"t": 2, "a": 0.0, "b": 8.0, "c": 4.0, "d": 1.0}
    rows = scored(send(bench, [low, high], "1"))
    assert [row.anomaly for row in rows] == [False, True]
    assert rows[0].why == []
    assert [name for name, _ in rows[1].why] == ["b", "c", "d"]


def test_score_at_the_threshold_is_no_anomaly(tmp_path: Path) -> None:
    one = (Feature("a", "/a"),)
    bench = make_bench(tmp_path, bundle_files(length=1, features=one, threshold=Threshold(5.0, "given")))
    assert [row.anomaly for row in scored(send(bench, [{"a": 5}, {"a": 5.0001}], "1"))] == [False, True]


def test_step_above_the_gap_in_either_direction_starts_anew(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    times = [0, 1, 2, 12, 12.5, 13, 14, 3, 4, 5, 15]
    rows = scored(send(bench, [reading(t) for t in times], "1"))
    assert [row.no_score for row in rows] == [
        "warm_up", "warm_up", None, None, None, None, None, "gap", "warm_up", None, None,
    ]  # fmt: skip


def test_equal_and_slightly_backward_times_are_taken_in_order_of_arrival(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = scored(send(bench, [reading(t) for t in [5, 5, 4, 5, 3]], "1"))
    assert [row.no_score for row in rows] == ["warm_up", "warm_up", None, None, None]


def test_row_without_a_readable_time_is_still_scored(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = scored(send(bench, [reading(1), reading(None), {"a": 1, "b": 2, "machine": "m", "t": "noon"}], "1"))
    assert [row.t for row in rows] == ["1970-01-01T00:00:01Z", None, None]
    assert rows[2].score is not None


def test_stride_is_counted_from_the_first_full_window(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, bundle_files(window=Window(3, 2)))
    rows = scored([send(bench, [reading(t)], str(t)) for t in range(7)])
    assert [row.no_score for row in rows] == ["warm_up", "warm_up", None, "stride", None, "stride", None]


def test_series_do_not_share_windows_nor_do_two_senders_of_one_name(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    mixed = [reading(t, machine=machine) for t in range(3) for machine in ("x", "y")]
    assert [row.no_score for row in scored(send(bench, mixed, "1", device="d"))] == ["warm_up"] * 4 + [None] * 2
    assert [row.no_score for row in scored(send(bench, reading(3, machine="x"), "2", device="e"))] == ["warm_up"]


def test_series_falls_back_to_the_device(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = scored(send(bench, [{"t": 1}, {"t": 1, "machine": 7}, {"t": 1, "machine": True}], "1", device="d"))
    assert [row.series for row in rows] == ["d", "7", "d"]


# Missing features


@pytest.mark.parametrize("value", ["true", '"1.5"', "null", "[]", "9" * 400, "9" * 5000, "1e999", "-1e999"])
def test_what_is_no_finite_number_is_a_missing_feature(tmp_path: Path, value: str) -> None:
    bench = make_bench(tmp_path)
    body = f'[{{"t": 1, "a": {value}, "b": 1}}, {{"t": 2, "b": 1}}]'.encode()
    result = bench.feed(body, message_id="1")
    assert [row.no_score for row in scored(result)] == ["missing_feature"] * 2
    assert rejected(result) == []
    assert bytes(scored(result)[0].reading) == f'{{"t": 1, "a": {value}, "b": 1}}'.encode()


def test_row_with_a_missing_feature_is_in_no_window(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    with_hole = [reading(0), reading(1, a=5.0), {"t": 2, "machine": "m", "b": 1}, reading(3)]
    rows = scored(send(bench, with_hole, "1"))
    assert [row.no_score for row in rows] == ["warm_up", "warm_up", "missing_feature", None]
    expected = (np.array([[1, 2], [5, 2], [1, 2]]) * weights_of(3, 2)).sum()
    assert rows[3].score == float(f"{expected:.9g}")


def test_constant_fills_and_hold_last_repeats_even_over_messages(tmp_path: Path) -> None:
    features = (Feature("a", "/a", missing="hold_last"), Feature("b", "/b", missing="constant", fill=7.0))
    bench = make_bench(tmp_path, bundle_files(length=1, features=features))
    first = scored(send(bench, [{"t": 0}, {"t": 1, "a": 3.0}], "1"))
    bench.restart()
    second = scored(send(bench, {"t": 2, "b": 1.0}, "2"))
    weights = weights_of(1, 2)[0]
    assert first[0].no_score == "missing_feature"
    assert first[1].score == float(f"{3 * weights[0] + 7 * weights[1]:.9g}")
    assert second[0].score == float(f"{3 * weights[0] + 1 * weights[1]:.9g}")


def test_score_that_is_not_finite_is_no_score(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, bundle_files(length=1))
    rows = scored(send(bench, [{"a": 1e308, "b": 1e308}, {"a": 1, "b": 1}], "1"))
    assert [(row.no_score, row.anomaly) for row in rows] == [("not_finite", False), (None, False)]


def test_float32_model_gets_float32(tmp_path: Path) -> None:
    features = (Feature("a", "/a", dtype="float32"),)
    files = bundle_files(length=1, features=features, dtype="float32", tolerance=1e-5)
    bench = make_bench(tmp_path, files)
    rows = scored(send(bench, [{"a": 0.1}, {"a": 1e300}], "1"))
    assert rows[0].score == float(f"{float(np.float32(0.1)):.9g}")
    assert rows[1].no_score == "missing_feature"


# Bodies


def test_number_text_is_kept(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    text = b'{"t":1,  "a":1.10,"b":1E+2, "id":12345678901234567890123}'
    assert bytes(scored(bench.feed(b"[" + text + b"]", message_id="1"))[0].reading) == text


def test_line_breaks_between_tokens_are_taken_out(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    row = scored(bench.feed(b'{\n  "t": 1,\r\n  "a": 1.10, "note": "x\\ny"\n}', message_id="1"))[0]
    assert bytes(row.reading) == b'{"t":1,"a":1.10,"note":"x\\ny"}'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'[{"a": 1}, {"a": Infinity}]', "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a": 1} {"a": 2}', "not_json"),
        (b"3", "not_a_reading"),
        (b'"text"', "not_a_reading"),
        (b"null", "not_a_reading"),
        (b"[" + b"{}," * 20_000 + b"{}]", "too_large"),
    ],
)
def test_body_that_is_no_reading_is_rejected_whole_with_its_bytes(tmp_path: Path, body: bytes, reason: str) -> None:
    bench = make_bench(tmp_path)
    result = bench.feed(body, message_id="1")
    assert (result.how, result.reason) == ("rejected", reason)
    assert b"".join(part.body for part in rejected(result)) == body


def test_bad_element_is_rejected_alone_with_its_own_text(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    result = bench.feed(b'[{"t": 1}, 3.10 , {"t": 2}, [ ], null]', message_id="1")
    assert [row.i for row in scored(result)] == [0, 2]
    assert [(part.i, part.reason, part.body) for part in rejected(result)] == [
        (1, "not_a_reading", b"3.10"),
        (3, "not_a_reading", b"[ ]"),
        (4, "not_a_reading", b"null"),
    ]


def test_gzip_is_inflated_and_bounded(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    body = json.dumps(series_of(4)).encode()
    result = bench.feed(gzip.compress(body[:20]) + gzip.compress(body[20:]), message_id="1", content_encoding="gzip")
    assert len(scored(result)) == 4
    bomb = gzip.compress(b"[" + b" " * 9_000_000 + b"]")
    assert bench.feed(bomb, message_id="2", content_encoding="gzip").reason == "too_large"
    assert bench.feed(gzip.compress(body)[:-9], message_id="3", content_encoding="gzip").reason == "bad_gzip"
    assert bench.feed(body, message_id="4", content_encoding="gzip").reason == "bad_gzip"


def test_empty_array_is_acknowledged_without_effect(tmp_path: Path) -> None:
    result = make_bench(tmp_path).feed(b"[]", message_id="1")
    assert (result.how, result.emitted) == ("handled", [])


def test_many_rows_are_split_into_messages_within_the_limit(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    big = [reading(i, note="x" * 5000) for i in range(120)]
    result = bench.feed(gzip.compress(json.dumps(big).encode()), message_id="1", content_encoding="gzip")
    assert len(result.emitted) > 2
    assert all(len(message.body) <= BODY_LIMIT_BYTES for message in result.emitted)
    assert [row.i for row in scored(result)] == list(range(120))


def test_reading_that_fits_no_message_is_rejected_alone(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = [reading(1), reading(2, note="x" * BODY_LIMIT_BYTES), reading(3)]
    result = bench.feed(gzip.compress(json.dumps(rows).encode()), message_id="1", content_encoding="gzip")
    assert [row.i for row in scored(result)] == [0, 2]
    assert {(part.i, part.reason) for part in rejected(result)} == {(1, "too_large")}
    assert msgspec.json.decode(b"".join(part.body for part in rejected(result))) == rows[1]


# Identity


def test_timestamp_in_the_body_identifies_a_message_without_an_id(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    assert bench.feed(b'{"t": 1}').how == "handled"
    assert bench.feed(b'{"t": 1}').how == "repeat"
    assert [bench.feed(b'{"a": 1}').how for _ in range(2)] == ["handled", "handled"]


# Models


def test_without_a_model_messages_are_held_until_it_appears(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {})
    held = send(bench, reading(1), "1")
    assert (held.how, held.reason, held.emitted) == ("held", "no_model", [])
    assert "no_model" in bench.health.reasons()
    write_folder(bundle_files(), tmp_path / "config" / "models" / "current")
    bench.tick(10)
    assert bench.health.reasons() == {}
    assert send(bench, reading(1), "1").how == "handled"


def test_without_a_model_rows_may_pass_unscored(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {}, settings={"when_no_model": "pass"})
    row = scored(send(bench, [reading(1), 3], "1", device="d"))[0]
    assert (row.no_score, row.series, row.t, row.score) == ("no_model", "d", None, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"parity_score": 1.0}, "bundle_parity"),
        ({"onnx": b"no model"}, "bundle_model"),
        ({"onnx": weighted_sum_onnx(weights_of(4, 2))}, "bundle_model"),
        ({"onnx": weighted_sum_onnx(weights_of(3, 2), "float32")}, "bundle_model"),
    ],
)
def test_model_that_is_not_what_its_manifest_says_is_not_used(
    tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    bench = make_bench(tmp_path, bundle_files(**changes))
    held = send(bench, reading(1), "1")
    assert (held.how, held.reason) == ("held", "no_model")
    assert held.detail.startswith(code)


def test_broken_bundle_is_refused_and_the_old_model_goes_on(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    send(bench, series_of(2), "1")
    write_folder(bundle_files(version="2", parity_score=1.0), tmp_path / "config" / "models" / "next")
    outcome = bench.set_settings({"bundle": "models/next"})
    assert (outcome.outcome, outcome.path) == ("refused", "$.bundle")
    assert outcome.reason is not None
    assert "parity" in outcome.reason
    assert scored(send(bench, reading(2), "2"))[0].score is not None
    assert bench.module.status()["model"] == {**_identity(bundle_files())}


def test_pinned_digest_decides(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    outcome = bench.set_settings({"bundle_digest": "sha256:" + "0" * 64})
    assert (outcome.outcome, outcome.path) == ("refused", "$.bundle_digest")
    assert bench.set_settings({"bundle_digest": Bundle.from_files(bundle_files()).digest}).outcome == "accepted"


def test_bundle_outside_the_config_folder_is_refused(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for path in ("../models/current", "/etc"):
        assert bench.set_settings({"bundle": path}).outcome == "refused"


def test_zip_is_a_bundle_too(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    (tmp_path / "config" / "next.zip").write_bytes(files_to_zip(bundle_files(version="2")))
    assert bench.set_settings({"bundle": "next.zip"}).outcome == "accepted"
    assert bench.module.status()["model"] == _identity(bundle_files(version="2"))


def test_new_model_with_the_same_window_goes_on_with_the_windows(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    send(bench, series_of(2), "1")
    write_folder(bundle_files(version="2"), tmp_path / "config" / "next")
    assert bench.set_settings({"bundle": "next"}).outcome == "accepted"
    assert scored(send(bench, reading(2), "2"))[0].no_score is None


def test_new_model_with_another_window_warms_up(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    send(bench, series_of(5), "1")
    write_folder(bundle_files(length=2), tmp_path / "config" / "next")
    assert bench.set_settings({"bundle": "next"}).outcome == "accepted"
    assert [row.no_score for row in scored(send(bench, series_of(2, 5), "2"))] == ["warm_up", None]


def test_bare_model_needs_leave_and_a_feature_map(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    (tmp_path / "config" / "bare.onnx").write_bytes(weighted_sum_onnx(weights_of(2, 1), "float32"))
    bare = {
        "name": "bare",
        "version": "1",
        "features": [{"name": "a", "pointer": "/a"}],
        "window_length": 2,
        "threshold": 10.0,
        "timestamp_pointer": "/t",
    }
    assert bench.set_settings({"bundle": "bare.onnx", "bare_model": bare}).outcome == "refused"
    wanted = {"bundle": "bare.onnx", "bare_model": bare, "allow_bare_model": True}
    assert bench.set_settings(wanted).outcome == "accepted"
    rows = scored(send(bench, [{"t": 1, "a": 1}, {"t": 2, "a": 2}], "1"))
    assert rows[1].score == pytest.approx(1 + 2 * 2**1.5)


# Bounds


def test_series_beyond_the_cap_are_forgotten_longest_unseen_first(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, bundle_files(length=2), settings={"max_series": 2, "series_in_memory": 1})
    for number, machine in enumerate(["x", "y", "x", "z"]):
        send(bench, reading(number, machine=machine), str(number))
    assert bench.module.status()["series"] == 2
    assert scored(send(bench, reading(4, machine="x"), "4"))[0].no_score is None
    assert scored(send(bench, reading(5, machine="y"), "5"))[0].no_score == "warm_up"


# Methods


def test_score_method_answers_without_leaving_a_trace(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    status, answer = bench.method("score", series_of(3))
    assert status == 200
    rows = msgspec.to_builtins(answer)["rows"]
    assert [row["no_score"] for row in rows] == ["warm_up", "warm_up", None]
    assert bench.kept == []
    assert scored(send(bench, reading(1), "1"))[0].no_score == "warm_up"


def test_score_method_refuses_what_is_no_reading(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    assert bench.method("score", "text")[0] == 400
    assert bench.method("score", [reading(1), 3])[0] == 400
    assert make_bench(tmp_path / "other", {}).method("score", reading(1))[0] == 503


def test_model_info_gives_the_manifest(tmp_path: Path) -> None:
    status, answer = make_bench(tmp_path).method("model_info")
    assert status == 200
    assert msgspec.to_builtins(answer)["manifest"]["window"] == {"length": 3, "stride": 1}


def test_layout_depends_on_the_windows_and_not_on_the_version() -> None:
    def digest(**changes: Any) -> bytes:
        return Layout.of(Bundle.from_files(bundle_files(**changes)).manifest).digest

    assert digest(version="1") == digest(version="2", threshold=Threshold(3.0, "given"))
    assert digest() != digest(window=Window(3, 2))
    assert digest() != digest(series_pointer=None)


def _identity(files: dict[str, bytes]) -> dict[str, str]:
    bundle = Bundle.from_files(files)
    return {"name": bundle.manifest.name, "version": bundle.manifest.version, "digest": bundle.digest}
