"""Lane messages as the router would send them."""

from collections.abc import Iterable

import msgspec

from contract.messages import Model, Readings, Rejected, Source, encode, reject
from contract.timestamps import format_timestamp

HOUR_MICROS = 3600 * 1_000_000
# In the hour of ManualClock's first moment.
START_MICROS = 1_795_000_000_000_000
MODEL = Model("pca", "1", "sha256:" + "b" * 64)
POLICY = "sha256:" + "a" * 64


def row(i: int, *, t: object = "", **more: object) -> msgspec.Raw:
    """A compliant row; by default its time is i seconds after START_MICROS."""
    time = format_timestamp(START_MICROS + i * 1_000_000) if t == "" else t
    fields = {"device": "pump-1", "i": i, "t": time, "score": 0.5, "reading": {"temperature": 71.25}, **more}
    return msgspec.Raw(msgspec.json.encode(fields))


def readings(rows: Iterable[msgspec.Raw], *, policy: str = POLICY, model: Model | None = MODEL) -> bytes:
    return encode(Readings(policy, "site", model, list(rows)))


def numbered(first: int, count: int) -> bytes:
    return readings(row(i) for i in range(first, first + count))


def anomalies(rows: Iterable[msgspec.Raw]) -> bytes:
    return readings(rows).replace(b"edgeweir.readings/1", b"edgeweir.anomalies/1")


def rejected(body: bytes = b"not json") -> bytes:
    source = Source("pump-1", "", "m1")
    received = format_timestamp(START_MICROS)
    parts = reject(body, reason="not_json", detail="", source=source, input_name="telemetry", received=received)
    return encode(Rejected("site", list(parts)))
