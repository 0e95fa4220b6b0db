"""The module over a real store: scores in, lanes out."""

from pathlib import Path

import msgspec
import pytest

from contract.limits import BODY_LIMIT_BYTES
from contract.messages import Rejected, decode
from tests.anomaly_router.scores import (
    MODEL,
    POLICY,
    START,
    events,
    feed,
    make_bench,
    readings,
    row,
    scores,
    windows,
)


def test_every_row_scored_or_not_is_one_compliant_row_of_readings(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    body = scores(row(0, reading='{"value":1.10,"operator":"x"}'), row(1, score=None), row(2, secs=None))
    (message,) = feed(bench, body, "1").emitted
    assert message.output == "readings"
    assert msgspec.json.decode(message.body) == {
        "schema": "edgeweir.readings/1",
        "policy": bench.method("policy_info")[1]["hash"],  # type: ignore[index]
        "site": "site",
        "model": {"name": "pump", "version": "1", "digest": "sha256:00"},
        "rows": [
            {"device": "device-1", "message": "m-1", "i": 0, "t": "2026-11-18T11:07:00Z", "series": "pump-1",
             "score": 0.5, "threshold": 1.0, "anomaly": False, "reading": {"value": 1.1}},
            {"device": "device-1", "message": "m-1", "i": 1, "t": "2026-11-18T11:07:00Z", "series": "pump-1",
             "anomaly": False, "no_score": "gap", "reading": {"value": 1.1}},
            {"device": "device-1", "message": "m-1", "i": 2, "series": "pump-1",
             "score": 0.5, "threshold": 1.0, "anomaly": False, "reading": {"value": 1.1}},
        ],
    }  # fmt: skip
    assert b'"reading":{"value":1.10}' in message.body
    assert bench.metrics.value("sent_rows", lane="readings") == 3


def test_an_episode_opens_grows_and_closes_with_each_anomalous_row_once(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, settings={"episode_close_after_rows": 2})
    first = feed(bench, scores(row(0), row(1, secs=1, anomaly=True, score=3.0)), "1").emitted
    second = feed(bench, scores(row(0, secs=2, anomaly=True, score=2.0), row(1, secs=3), row(2, secs=4)), "2").emitted
    opened, updated, closed = events([*first, *second])
    assert [event.kind for event in (opened, updated, closed)] == ["opened", "updated", "closed"]
    assert len({opened.episode, updated.episode, closed.episode}) == 1
    assert [event.rows_total for event in (opened, updated, closed)] == [1, 2, 2]
    assert [len(event.rows) for event in (opened, updated, closed)] == [1, 1, 0]
    assert (closed.started, closed.ended, closed.peak_score) == ("2026-11-18T11:07:01Z", "2026-11-18T11:07:02Z", 3.0)
    assert (opened.device, opened.series) == ("device-1", "pump-1")
    assert bytes(opened.rows[0]).startswith(b'{"device":"device-1","message":"m-1","i":1,')


def test_series_of_one_name_from_two_devices_are_two_series(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    feed(bench, scores(row(anomaly=True)), "1")
    result = feed(bench, scores(row(anomaly=True), device="device-2"), "2")
    assert [event.kind for event in events(result.emitted)] == ["opened"]


def test_many_anomalous_rows_are_cut_into_events_and_messages_that_fit(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, settings={"episode_rows_per_event": 7})
    reading = '{"value":"' + "x" * 9_000 + '"}'
    emitted = feed(bench, scores(*(row(i, anomaly=True, reading=reading) for i in range(40))), "1").emitted
    assert all(len(message.body) <= BODY_LIMIT_BYTES for message in emitted)
    cut = [(event.kind, len(event.rows), event.rows_total) for event in events(emitted)]
    assert cut[:2] == [("opened", 7, 7), ("updated", 7, 14)]
    assert cut[2:] == [("updated", 7, 21), ("updated", 7, 28), ("updated", 7, 35), ("updated", 5, 40)]
    assert len(readings(emitted)) == 40
    assert [message.output for message in emitted].count("readings") == 2
    (tmp_path / "wide").mkdir()
    wide = make_bench(tmp_path / "wide")
    emitted = feed(wide, scores(*(row(i, anomaly=True, reading=reading) for i in range(26))), "1").emitted
    assert all(len(message.body) <= BODY_LIMIT_BYTES for message in emitted)
    assert [len(event.rows) for event in events(emitted)] == [25, 1]


def test_a_row_too_large_to_travel_alone_is_rejected_with_its_bytes_and_the_others_go_on(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    reading = '{"value":"' + "x" * 235_000 + '"}'
    result = feed(bench, scores(row(0), row(1, anomaly=True, reading=reading), row(2)), "1")
    assert result.how == "handled"
    assert len(readings(result.emitted)) == 2
    assert events(result.emitted) == []
    parts = [part for m in result.emitted if m.output == "rejected" for part in decode(Rejected, m.body).rows]
    assert {(part.reason, part.i, part.device, part.message) for part in parts} == {("too_large", 1, "device-1", "m-1")}
    assert b"".join(part.body for part in parts) == reading.encode()


def test_the_name_of_a_series_is_bounded(tmp_path: Path) -> None:
    result = feed(make_bench(tmp_path), scores(row(series="s" * 1_025)), "1")
    assert [message.output for message in result.emitted] == ["rejected"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "not_json"),
        (b"{", "not_json"),
        (b'{"schema":"edgeweir.scores/2"}', "schema_unsupported"),
        (b"[]", "schema_unsupported"),
        (b'{"schema":"edgeweir.scores/1"}', "bad_shape"),
        (scores(row(reading="[1]")), "bad_shape"),
        (scores(row()).replace(b'"pump-1"', b'"\xff"'), "not_json"),
        (scores(row(reading='{"value":"\u00e9"}')).replace(b"\xc3\xa9", b"\xe9"), "not_json"),
        (scores(row(reading='{"value":0}')).replace(b":0}", b":" + b"[" * 60_000 + b"]" * 60_000 + b"}"), "not_json"),
    ],
)
def test_a_message_that_cannot_be_read_is_rejected_with_its_bytes(tmp_path: Path, body: bytes, reason: str) -> None:
    bench = make_bench(tmp_path)
    result = feed(bench, body, "1")
    assert (result.how, result.reason) == ("rejected", reason)
    (message,) = result.emitted
    assert message.output == "rejected"
    assert b"".join(part.body for part in decode(Rejected, message.body).rows) == body


def test_without_a_policy_nothing_is_acknowledged_and_nothing_leaves_until_there_is_one(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, policy=None)
    held = feed(bench, scores(row()), "1")
    assert (held.how, held.reason, held.emitted) == ("held", "no_policy", [])
    assert "no_policy" in bench.health.reasons()
    (tmp_path / "policy.yaml").write_text(POLICY)
    bench.tick()
    bench.tick()
    assert feed(bench, scores(row()), "1").how == "handled"
    assert bench.health.reasons() == {}
    assert bench.reported["policy"]["name"] == "test"  # type: ignore[index]


def test_a_bad_policy_is_reported_and_the_old_one_stays_also_over_a_restart(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    before = feed(bench, scores(row()), "1").emitted
    (tmp_path / "policy.yaml").write_text(POLICY.replace("keep", "mask"))
    bench.tick()
    bench.tick()
    assert bench.health.reasons()["policy_refused"].startswith("unsupported at fields/0/transform (line 15): mask")
    bench.restart()
    bench.tick()
    after = feed(bench, scores(row()), "2").emitted
    assert [message.body for message in after] == [message.body for message in before]
    assert "policy_refused" in bench.health.reasons()


def test_a_policy_is_kept_before_anything_leaves_under_it(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    feed(bench, scores(row()), "1")
    (tmp_path / "policy.yaml").unlink()
    bench.restart()
    assert feed(bench, scores(row()), "2").how == "handled"


def test_a_pin_that_no_policy_matches_holds(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    pin = bench.method("policy_info")[1]["hash"]  # type: ignore[index]
    assert bench.set_settings({"policy_sha256": "0" * 64}).outcome == "accepted"
    assert feed(bench, scores(row()), "1").reason == "no_policy"
    assert bench.set_settings({"policy_sha256": pin}).outcome == "accepted"
    assert feed(bench, scores(row()), "1").how == "handled"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"policy_file": "/etc/passwd"}, "$.policy_file"),
        ({"policy_file": "../policy.yaml"}, "$.policy_file"),
        ({"policy_sha256": "abc"}, "$.policy_sha256"),
        ({"insight_window_secs": 1, "insight_lateness_secs": 61}, "$.insight_lateness_secs"),
        ({"episode_close_after_rows": 0}, "$.episode_close_after_rows"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tmp_path: Path, settings: dict[str, object], path: str) -> None:
    outcome = make_bench(tmp_path).set_settings(settings)
    assert (outcome.outcome, outcome.path) == ("refused", path)


def test_a_lane_that_the_policy_does_not_open_sends_nothing_and_counts_it(tmp_path: Path) -> None:
    closed = POLICY.replace("  anomalies: {purpose: b}\n", "").replace(", anomalies", "")
    bench = make_bench(tmp_path, policy=closed)
    result = feed(bench, scores(row(anomaly=True)), "1")
    assert [message.output for message in result.emitted] == ["readings"]
    assert bench.metrics.value("withheld_rows", lane="anomalies") == 1


def test_windows_aggregate_what_the_policy_lets_out_of_scored_and_unscored_rows(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    rows = [
        row(0, secs=0, score=0.5, reading='{"value":1.10,"rounded":0.45,"hidden":5}'),
        row(1, secs=59, score=1.5, anomaly=True, reading='{"value":3.30,"rounded":"text"}'),
        row(2, secs=30, score=None, reading='{"rounded":1.55}'),
        row(3, secs=None),
        row(4, secs=130),
    ]
    (window,) = windows(feed(bench, scores(*rows), "1").emitted)
    assert (window.t, window.end) == ("2026-11-18T11:07:00Z", "2026-11-18T11:08:00Z")
    assert (window.rows, window.anomalies, window.unscored, window.untimed_rows) == (3, 1, 1, 1)
    assert (window.score_max, window.score_mean) == (1.5, 1.0)
    assert msgspec.to_builtins(window.fields) == {
        "value": {"count": 2, "min": 1.1, "max": 3.3, "mean": 2.2},
        "rounded": {"count": 2, "min": 0.4, "max": 1.6, "mean": 1.0},
    }
    assert bench.metrics.value("untimed_rows") == 1


def test_a_silent_series_is_closed_by_running_time_also_over_a_restart(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, settings={"insight_idle_secs": 60, "episode_idle_secs": 90})
    feed(bench, scores(row(secs=1, anomaly=True)), "1")
    assert bench.tick(59) == []
    bench.restart()
    assert bench.tick(59) == []
    emitted = bench.tick(2)
    assert [message.output for message in emitted] == ["insights"]
    assert msgspec.json.decode(emitted[0].body)["model"] == msgspec.to_builtins(MODEL)
    (event,) = events(bench.tick(30))
    assert (event.kind, event.rows_total, event.ended, event.rows) == ("closed", 1, "2026-11-18T11:07:01Z", [])
    assert bench.tick(10_000) == []


def test_the_number_of_remembered_series_is_bounded_and_what_is_forgotten_is_closed_first(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, settings={"max_series": 3})
    for n in range(5):
        feed(bench, scores(row(series=f"pump-{n}", anomaly=True), message=f"m-{n}"), str(n))
    feed(bench, scores(row(secs=1, series="pump-0")), "again")
    bench.restart()
    emitted = bench.tick()
    assert [(event.kind, event.series) for event in events(emitted)] == [("closed", "pump-1"), ("closed", "pump-2")]
    assert [window.series for window in windows(emitted)] == ["pump-1", "pump-2"]
    assert bench.module.status()["series"] == 3
    assert bench.metrics.value("forgotten_series") == 2


def test_a_narrower_policy_keeps_a_field_out_of_the_window_that_is_already_open(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    feed(bench, scores(row(secs=0, reading='{"value":1.10,"rounded":0.25}')), "1")
    narrower = POLICY.replace("/value, class: operational, transform: keep", "/value, class: secret, transform: drop")
    narrower = narrower.replace("drop, lanes: [readings, anomalies, insights]", "drop")
    assert narrower != POLICY
    (tmp_path / "policy.yaml").write_text(narrower)
    bench.tick()
    bench.tick()
    (window,) = windows(bench.tick(1_000))
    assert set(window.fields) == {"rounded"}


def test_what_the_policy_denies_of_the_envelope_is_absent_from_events_and_windows(tmp_path: Path) -> None:
    head, _, fields = POLICY.partition("envelope:")
    policy = head + "envelope:\n  score: {class: operational, transform: drop}\n" + fields[fields.index("fields:") :]
    bench = make_bench(tmp_path, policy=policy)
    emitted = feed(bench, scores(row(anomaly=True, score=3.0)), "1").emitted + bench.tick(1_000)
    episode = events(emitted)[0].episode
    row_left = {"threshold": 1.0, "anomaly": True, "reading": {"value": 1.1}}
    assert msgspec.json.decode(msgspec.json.encode(events(emitted))) == [
        {"kind": "opened", "episode": episode, "rows_total": 1, "rows": [row_left]},
        {"kind": "closed", "episode": episode, "rows_total": 1},
    ]
    (window,) = windows(emitted)
    aggregate = {"count": 1, "min": 1.1, "max": 1.1, "mean": 1.1}
    assert msgspec.json.decode(msgspec.json.encode(window)) == {
        "rows": 1, "anomalies": 1, "unscored": 0, "fields": {"value": aggregate},
    }  # fmt: skip


def test_direct_methods_say_what_the_policy_is_and_does(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    status, info = bench.method("policy_info")
    assert status == 200
    assert isinstance(info, dict)
    assert (info["name"], info["version"], info["fields"], info["refused"]) == ("test", "1", 2, None)
    status, answer = bench.method("explain", {"reading": {"value": 1, "operator": "a name"}})
    assert isinstance(answer, dict)
    assert status == 200
    assert answer["policy"] == info["hash"]
    assert [each["decision"] for each in answer["fields"]] == ["keep", "denied: no rule names it"]
    assert "a name" not in str(answer)
    assert bench.method("explain", [1])[0] == 400


def test_without_a_policy_nothing_is_explained(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, policy=None)
    assert bench.method("explain", {"reading": {}})[0] == 503
    status, info = bench.method("policy_info")
    assert isinstance(info, dict)
    assert (status, info["hash"]) == (200, None)
    assert "not_found" in info["refused"]


def test_more_series_than_memory_holds_are_all_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_router.series.IN_MEMORY", 2)
    bench = make_bench(tmp_path)
    for turn in range(2):
        body = scores(*(row(n, secs=turn, series=f"pump-{n}", anomaly=True) for n in range(6)))
        kinds = [event.kind for event in events(feed(bench, body, str(turn)).emitted)]
        assert kinds == ["opened" if turn == 0 else "updated"] * 6
    assert sum(window.rows for window in windows(bench.tick(1_000))) == 12


def test_start_is_a_whole_minute() -> None:
    assert START % 60_000_000 == 0
