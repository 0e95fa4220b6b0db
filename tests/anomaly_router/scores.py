"""Scores messages and what a router makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Raw

from anomaly_router.router import AnomalyRouter
from anomaly_router.settings import Settings
from contract.messages import (
    Anomalies,
    EpisodeEvent,
    Insights,
    InsightWindow,
    Model,
    Readings,
    Run,
    ScoredRow,
    Scores,
    Source,
    decode,
    encode,
)
from contract.timestamps import format_timestamp
from edge_module import OutboxMessage
from edge_module.testing import Bench, Result

MODEL = Model("pump", "1", "sha256:00")
START = 1_795_000_020_000_000  # a whole minute
POLICY = """edgeweir_policy: 1
name: test
version: "1"
lanes:
  readings: {purpose: a}
  anomalies: {purpose: b}
  insights: {purpose: c}
envelope:
  device: {class: operational, transform: keep, lanes: [readings, anomalies, insights]}
  series: {class: operational, transform: keep, lanes: [readings, anomalies, insights]}
  t: {class: operational, transform: keep, lanes: [readings, anomalies, insights]}
  message: {class: operational, transform: keep, lanes: [readings, anomalies]}
  i: {class: operational, transform: keep, lanes: [readings, anomalies]}
fields:
  - {path: /value, class: operational, transform: keep, lanes: [readings, anomalies, insights]}
  - {path: /rounded, class: operational, transform: round, decimals: 1, lanes: [readings, insights]}
"""


def row(
    i: int = 0,
    *,
    secs: float | None = 0,
    score: float | None = 0.5,
    anomaly: bool = False,
    series: str = "pump-1",
    reading: str = '{"value":1.10}',
    why: Sequence[tuple[str, float]] = (),
) -> ScoredRow:
    return ScoredRow(
        i=i,
        series=series,
        reading=Raw(reading.encode()),
        t=None if secs is None else format_timestamp(START + round(secs * 1_000_000)),
        score=score,
        threshold=None if score is None else 1.0,
        anomaly=anomaly,
        no_score="gap" if score is None else None,
        why=list(why),
    )


def scores(*rows: ScoredRow, device: str = "device-1", message: str = "m-1") -> bytes:
    return encode(Scores(MODEL, [Run(Source(device, "", message), list(rows))]))


def make_bench(
    path: Path, policy: str | None = POLICY, settings: Mapping[str, object] | None = None
) -> Bench[Settings]:
    if policy is not None:
        (path / "policy.yaml").write_text(policy)
    return Bench(AnomalyRouter, path, settings=settings)


def feed(bench: Bench[Settings], body: bytes, message_id: str) -> Result:
    return bench.feed(body, device="edge", module="scorer", message_id=message_id)


def events(messages: Sequence[OutboxMessage]) -> list[EpisodeEvent]:
    return [each for m in messages if m.output == "anomalies" for each in decode(Anomalies, m.body).rows]


def windows(messages: Sequence[OutboxMessage]) -> list[InsightWindow]:
    return [each for m in messages if m.output == "insights" for each in decode(Insights, m.body).rows]


def readings(messages: Sequence[OutboxMessage]) -> list[Raw]:
    return [each for m in messages if m.output == "readings" for each in decode(Readings, m.body).rows]
