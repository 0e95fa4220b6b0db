"""What leaves of what is known about a reading beside its text, and that nothing else does."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contract.messages import Source
from policy import compile_policy
from tests.policy.documents import HEAD, SOURCE, policy_of, rule, scored

IDENTITY = ("device", "module", "message", "series", "t", "i", "enqueued")
WHY = [("a", 0.5), ("b", 0.25), ("c", 0.125)]
FULL: dict[str, object] = {"t": "2026-11-23T18:00:00Z", "score": 2.5, "threshold": 1.0, "anomaly": True, "why": WHY}


def row_of(envelope: str, *fields: str, **values: object) -> dict[str, object]:
    text = policy_of(*fields, envelope=envelope).row("readings", scored('{"a":1}', **values), SOURCE)
    return msgspec.json.decode(text, type=dict[str, object])


def test_the_envelope_is_denied_unless_named_and_the_verdict_allowed_unless_dropped() -> None:
    assert row_of("", **FULL) == {"score": 2.5, "threshold": 1.0, "anomaly": True, "why": [["other", 0.875]]}
    assert row_of("", no_score="gap") == {"anomaly": False, "no_score": "gap"}


def test_each_named_part_of_the_envelope_leaves_alone() -> None:
    for name in IDENTITY:
        row = row_of(f"  {name}: {{class: operational, transform: keep, lanes: [readings]}}\n", **FULL)
        assert set(row) - {"score", "threshold", "anomaly", "why"} == {name}


def test_each_part_of_the_verdict_can_be_dropped() -> None:
    for name in ("score", "threshold", "anomaly", "why"):
        assert name not in row_of(f"  {name}: {{class: operational, transform: drop}}\n", **FULL)
    assert "no_score" not in row_of("  no_score: {class: personal, transform: drop}\n", no_score="gap")


def test_a_part_named_for_one_lane_is_denied_on_the_others() -> None:
    policy = policy_of(envelope="  score: {class: operational, transform: keep, lanes: [anomalies]}\n")
    assert policy.row("readings", scored("{}", score=1.0), SOURCE) == b'{"anomaly":false}'
    assert policy.row("anomalies", scored("{}", score=1.0), SOURCE) == b'{"score":1.0,"anomaly":false}'
    assert not policy.lanes["insights"].carries("score")


def test_shares_of_denied_features_are_merged_as_other_at_the_end() -> None:
    assert row_of("", rule("/b"), **FULL)["why"] == [["b", 0.25], ["other", 0.625]]
    assert row_of("", rule("/a"), rule("/b"), rule("/c"), **FULL)["why"] == [["a", 0.5], ["b", 0.25], ["c", 0.125]]
    assert row_of("", rule("/x/temp", feature="c"), **FULL)["why"] == [["c", 0.125], ["other", 0.75]]
    assert row_of("", rule("/a", lanes="anomalies"), **FULL)["why"] == [["other", 0.875]]
    assert row_of("", rule("/a", "drop"), **FULL)["why"] == [["other", 0.875]]


def test_a_lane_that_is_not_declared_is_closed() -> None:
    policy = compile_policy(HEAD.replace("  anomalies: {purpose: b}\n", "") + "fields: []\n")
    assert [lane for lane, each in policy.lanes.items() if each.is_open] == ["insights", "readings"]


# Non-interference

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ALLOWED = ("keep", "round", "nest", "list", "kept")
_allowed = st.fixed_dictionaries(
    {}, optional={"keep": _json, "round": _json, "nest": st.integers(), "list": st.integers()}
)
_denied = st.dictionaries(st.text(max_size=6).filter(lambda key: key not in ALLOWED), _json, max_size=4)
POLICY = policy_of(
    rule("/keep", lanes="readings, anomalies, insights"),
    rule("/round", "round", lanes="readings, insights", decimals=1),
    rule("/nest/kept"), rule("/list/[]/kept"), rule("/dropped", "drop"),
    envelope="  t: {class: operational, transform: keep, lanes: [readings]}\n",
)  # fmt: skip


def _reading(allowed: dict[str, object], denied: dict[str, object]) -> str:
    """The allowed values, with denied ones around them and inside the containers that hold them."""
    half = len(denied) // 2
    reading = dict(list(denied.items())[:half])
    for key, value in allowed.items():
        if key == "nest":
            reading[key] = {**denied, "kept": value}
        elif key == "list":
            reading[key] = [denied, {"kept": value, **denied}, *denied.values()]
        else:
            reading[key] = value
    reading.update(list(denied.items())[half:])
    return msgspec.json.encode(reading).decode()


@given(_allowed, _denied, _denied, st.text(max_size=5), st.text(max_size=5), st.text(max_size=9))
def test_rows_that_differ_only_in_what_is_denied_are_equal_on_every_lane(
    allowed: dict[str, object], one: dict[str, object], two: dict[str, object], device: str, series: str, feature: str
) -> None:
    if feature in ALLOWED:
        feature = "x"
    verdict: dict[str, object] = {"score": 1.5, "t": "2026-11-23T18:00:00Z"}
    first = scored(_reading(allowed, one), why=[("keep", 0.5), ("x", 0.25)], **verdict)
    second = scored(_reading(allowed, two), series=series, i=7, why=[("keep", 0.5), (feature, 0.25)], **verdict)
    for lane in POLICY.lanes:
        assert POLICY.row(lane, first, SOURCE) == POLICY.row(lane, second, Source(device, "m", "id", None))
