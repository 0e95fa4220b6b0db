"""What a demo sends, planned before anything starts: machines, faults, repeats, poison. Pure, but for reading a CSV.

Everything that is sent is known beforehand, so what must be stored is known too, whatever happens on the way.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import yaml

from contract.lanes import LANES, SITE_ONLY
from simulator.delivery import Message, Mishaps, into_messages, with_mishaps
from simulator.faults import Fault
from simulator.machines import FaultPlan, Pump, machine_names
from simulator.replay import LabelledWindow, Replay

ROWS_PER_PUMP: Final = 500
TRAINING_ROWS_PER_PUMP: Final = 1500
TRAINING_SHARE: Final = 0.15
POISON_DEVICE: Final = "visitor"
_REPEATED_SHARE: Final = 0.02
_DAY_MICROS: Final = 86_400_000_000
_MESSAGES_PER_SEC: Final = 1.0
_REPLAY_MESSAGES_PER_SEC: Final = 2.0
# What IoT Hub allows in a device id, less the characters that need escaping in places.
_NOT_IN_DEVICE_ID = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Delivery:
    """What one device sends, in order, repeats and all; one message each `pause_secs`."""

    device: str
    messages: tuple[Message, ...]
    pause_secs: float


@dataclass(frozen=True)
class Scenario:
    """`policy` is None for the module's own example policy; `desired` is merged into the modules' twins."""

    title: str
    deliveries: tuple[Delivery, ...]
    faults: tuple[Fault, ...] = ()
    windows: tuple[LabelledWindow, ...] = ()
    times: tuple[int | None, ...] = ()
    policy: str | None = None
    desired: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows in all messages, those of repeats counted once."""
        return sum(len(message.texts) for one in self.deliveries for message in dict.fromkeys(one.messages))


def pumps(*, seed: int, count: int, send_secs: float, start_micros: int) -> Scenario:
    """`count` pumps with faults, and a visitor who sends what nobody can read."""
    plan = FaultPlan(rows=ROWS_PER_PUMP)
    rows_per_message = max(1, round(ROWS_PER_PUMP / (send_secs * _MESSAGES_PER_SEC)))
    pause_secs = send_secs * rows_per_message / ROWS_PER_PUMP
    deliveries = []
    faults: list[Fault] = []
    for name in machine_names(count):
        pump = Pump(seed, name, start_micros, plan=plan)
        readings = islice(pump.readings(), ROWS_PER_PUMP)
        messages = into_messages(readings, device=name, rows_per_message=rows_per_message)
        sent = with_mishaps(messages, Mishaps(repeated=_REPEATED_SHARE), random.Random(f"delivery/{seed}/{name}"))
        deliveries.append(Delivery(name, tuple(sent), pause_secs))
        faults.extend(pump.faults)
    visitor = poison(Pump(seed, POISON_DEVICE, start_micros))
    deliveries.append(Delivery(POISON_DEVICE, visitor, send_secs / len(visitor)))
    return Scenario(
        title=f"{count} pumps, and a visitor who sends garbage",
        deliveries=tuple(deliveries),
        faults=tuple(faults),
        desired={"anomaly_router": {"insight_window_secs": 30}},
    )


def training_lines(*, seed: int, count: int, start_micros: int) -> Iterator[str]:
    """Clean readings of the same pumps, from the day before."""
    for name in machine_names(count):
        pump = Pump(seed, name, start_micros - _DAY_MICROS, chapter=1)
        for reading in islice(pump.readings(), TRAINING_ROWS_PER_PUMP):
            yield reading.text


def replay(source: Replay, *, send_secs: float) -> Scenario:
    """One device sends the whole file in order, as arrays so large that it takes about `send_secs`."""
    device = _NOT_IN_DEVICE_ID.sub("_", source.name)[:100] or "replay"
    messages_wanted = max(1.0, send_secs * _REPLAY_MESSAGES_PER_SEC)
    rows_per_message = max(1, -(-len(source.rows) // round(messages_wanted)))
    messages = tuple(into_messages(source.rows, device=device, rows_per_message=rows_per_message))
    sent = with_mishaps(messages, Mishaps(repeated=_REPEATED_SHARE), random.Random(f"delivery/{device}"))
    visitor = poison(None)
    return Scenario(
        title=f"{source.path.name}, {len(source.rows):,} rows",
        deliveries=(
            Delivery(device, tuple(sent), send_secs / max(1, len(messages))),
            Delivery(POISON_DEVICE, visitor, send_secs / len(visitor)),
        ),
        windows=source.windows,
        times=tuple(row.ts_micros for row in source.rows),
        policy=replay_policy(source),
        # A file may span months: windows of a day, and episodes that bridge a few missing rows.
        desired={
            "anomaly_router": {
                "insight_window_secs": 86_400,
                "episode_close_after_secs": 86_400.0,
            }
        },
    )


def replay_policy(source: Replay) -> str:
    """A policy that keeps the time and the numbers of this file, and nothing else."""
    open_lanes = [lane for lane in LANES if lane not in SITE_ONLY]
    rows = {"class": "operational", "transform": "keep", "lanes": ["readings", "anomalies"]}
    everywhere = {**rows, "lanes": open_lanes}
    document = {
        "edgeweir_policy": 1,
        "name": "replay",
        "version": "1",
        "description": f"What may leave of {source.path.name}.",
        "lanes": {lane: {"purpose": "demonstration"} for lane in open_lanes},
        "envelope": {"device": everywhere, "series": everywhere, "t": everywhere, "message": rows, "i": rows},
        "fields": [
            {"path": _pointer(source.time_column), **rows},
            *({"path": _pointer(name), **everywhere} for name in source.columns),
        ],
    }
    # One document per value, no anchors: the policy language knows none.
    return yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, allow_unicode=True)


def poison(pump: Pump | None) -> tuple[Message, ...]:
    """Messages that can never be scored, and one array that is good but for two of its elements."""
    good = tuple(reading.text for reading in islice(pump.readings(), 2)) if pump else ()
    bodies: list[tuple[bytes, tuple[str, ...]]] = [
        (b"\x00\xff\xfe this is no JSON", ()),
        (b'{"ts":"2026-11-23T18:00:00Z","machine":"cut off', ()),
        (b"42", ()),
        (b'"a text"', ()),
        (("[" + ",".join([*good[:1], "17", *good[1:], '"x"']) + "]").encode(), good),
        (b"", ()),
    ]
    return tuple(
        Message(f"{POISON_DEVICE}-{number}", body, texts) for number, (body, texts) in enumerate(bodies, start=1)
    )


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
