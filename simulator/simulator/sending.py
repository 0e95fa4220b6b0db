"""Sending readings from the command line: what is sent by whom, at which pace, and to which hub."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simulator.control import Control
from simulator.delivery import Message, Mishaps, into_messages, with_mishaps
from simulator.devices import Access, Device, sdk_log
from simulator.errors import UserError
from simulator.folders import StateFolder
from simulator.local_site import EdgeInfo
from simulator.machines import INTERVAL_SECS, Pump, Reading, with_clock_jump
from simulator.replay import Replay

# A connection string that is wrong stays wrong; a hub that starts needs a moment.
_FIRST_CONNECTS = 3


def describe_pace(plan: "Plan") -> str:
    """One line: how much, and for how long."""
    longest = max((len(messages) for messages in plan.messages.values()), default=0)
    secs = max(0, longest - 1) * plan.pause_secs
    if secs < 1:
        return f"sending {plan.total:,} messages as fast as they go"
    if secs > 172_800:
        lasts = f"{secs / 86_400:,.0f} days"
    elif secs > 7_200:
        lasts = f"{secs / 3_600:,.0f} hours"
    elif secs > 120:
        lasts = f"{secs / 60:,.0f} minutes"
    else:
        lasts = f"{secs:,.0f} seconds"
    return f"sending {plan.total:,} messages over {lasts}; --speed makes it faster, --speed 0 as fast as it goes"


@dataclass(frozen=True)
class Plan:
    """What to send: `pause_secs` lie between two messages of a device."""

    names: tuple[str, ...]
    messages: dict[str, tuple[Message, ...]]
    pause_secs: float

    @property
    def total(self) -> int:
        return sum(len(messages) for messages in self.messages.values())


def pump_plan(
    pumps: list[Pump],
    *,
    rows: int,
    batch: int,
    speed: float,
    mishaps: Mishaps,
    seed: int,
    clock_jump_secs: float = 0.0,
) -> Plan:
    messages = {}
    for pump in pumps:
        readings: Iterator[Reading] = itertools.islice(pump.readings(), rows)
        if clock_jump_secs:
            readings = with_clock_jump(readings, at=rows // 2, secs=clock_jump_secs)
        rng = random.Random(f"delivery/{seed}/{pump.name}")
        cut = into_messages(readings, device=pump.name, rows_per_message=batch)
        messages[pump.name] = tuple(with_mishaps(cut, mishaps, rng))
    return Plan(tuple(messages), messages, batch * INTERVAL_SECS / speed if speed else 0.0)


def replay_plan(replay: Replay, *, batch: int, speed: float, mishaps: Mishaps, seed: int) -> Plan:
    """At the file's own pace (its usual step in time), times `speed`."""
    times = [row.ts_micros for row in replay.rows if row.ts_micros is not None]
    steps = sorted(after - before for before, after in itertools.pairwise(times) if after > before)
    step_secs = steps[len(steps) // 2] / 1e6 if steps else 0.0
    cut = into_messages(replay.rows, device=replay.name, rows_per_message=batch)
    messages = tuple(with_mishaps(cut, mishaps, random.Random(f"delivery/{seed}/{replay.name}")))
    return Plan((replay.name,), {replay.name: messages}, batch * step_secs / speed if speed else 0.0)


def write_readings(pumps: list[Pump], rows: int, path: Path) -> None:
    """JSON Lines as devices send them, with `label` naming the fault of a row. Raises UserError."""
    try:
        with path.open("w", encoding="utf-8") as file:
            for pump in pumps:
                for reading in itertools.islice(pump.readings(), rows):
                    label = json.dumps(reading.fault.kind if reading.fault else "normal")
                    file.write(f'{reading.text[:-1]},"label":{label}}}\n')
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


async def find_accesses(plan: Plan, state: Path, connection_string: str | None, ca: Path | None) -> dict[str, Access]:
    if connection_string is not None:
        access = Access.from_files(connection_string, ca)
        access.device_id  # noqa: B018 - refuses a text that names no device
        return dict.fromkeys(plan.names, access)
    folder = StateFolder(state)
    info, control = EdgeInfo.of_folder(folder), Control(folder.control_socket)
    return {name: info.access(name, await control.create_device(name)) for name in plan.names}


async def send(plan: Plan, accesses: dict[str, Access], console: Console, logs: Path) -> tuple[int, int]:
    """Messages acknowledged, and further attempts that it took."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with sdk_log(logs), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("messages", total=plan.total)
        async with contextlib.AsyncExitStack() as stack:
            devices = {
                name: await stack.enter_async_context(Device(access, note=progress.console.print))
                for name, access in accesses.items()
            }
            await asyncio.gather(*(device.connect(attempts=_FIRST_CONNECTS) for device in devices.values()))
            progress.console.print(describe_pace(plan), highlight=False, soft_wrap=True)
            async with asyncio.TaskGroup() as group:
                for name, device in devices.items():
                    group.create_task(
                        device.send_all(
                            plan.messages[name], pause_secs=plan.pause_secs, progress=lambda _: progress.advance(task)
                        )
                    )
    return plan.total, sum(device.ledger.failures for device in devices.values())
