"""Small policies and rows for the tests."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from contract.messages import ScoredRow, Source
from policy import Policy, compile_policy

HEAD = """edgeweir_policy: 1
name: test
version: "1"
lanes:
  readings: {purpose: a}
  anomalies: {purpose: b}
  insights: {purpose: c}
"""
SOURCE = Source("device-1", "", "message-1", "2026-11-23T18:00:01Z")


def rule(path: str, transform: str = "keep", lanes: str = "readings", **extra: object) -> str:
    tail = "" if transform == "drop" else f", lanes: [{lanes}]"
    tail += "".join(f", {name}: {value}" for name, value in extra.items())
    return f"  - {{path: '{path}', class: operational, transform: {transform}{tail}}}\n"


def policy_of(*fields: str, keys: Sequence[str] = (), envelope: str = "") -> Policy:
    text = HEAD + ("fields:\n" + "".join(fields) if fields else "fields: []\n")
    text += "keys:\n" + "".join(keys) if keys else ""
    return compile_policy(text + (f"envelope:\n{envelope}" if envelope else ""))


def scored(reading: str, **values: object) -> ScoredRow:
    return ScoredRow(**{"i": 0, "series": "pump-1", "reading": Raw(reading.encode()), **values})  # type: ignore[arg-type]


def released(policy: Policy, reading: str, lane: str = "readings") -> str | None:
    """The text of the reading in the compliant row."""
    row = msgspec.json.decode(policy.row(lane, scored(reading), SOURCE), type=dict[str, Raw])  # type: ignore[arg-type]
    return bytes(row["reading"]).decode() if "reading" in row else None
