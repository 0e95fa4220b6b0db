"""`edgeweir simulate`: devices that send machine data, or a CSV, to the running edge or to any gateway or hub."""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.commands.running import run
from simulator.control import Control
from simulator.delivery import Message, Mishaps, into_messages, with_mishaps
from simulator.devices import Access, Device, sdk_log
from simulator.errors import UserError
from simulator.folders import StateFolder
from simulator.local_site import EdgeInfo
from simulator.machines import INTERVAL_SECS, FaultPlan, Pump, Reading, machine_names, with_clock_jump
from simulator.project import DEFAULT_STATE
from simulator.replay import Replay, read_replay

_NAME = "simulate"
_FIRST_CONNECTS = 3


@dataclass(frozen=True)
class Plan:
    """What to send: `pause_secs` lie between two messages of a device."""

    names: tuple[str, ...]
    messages: dict[str, tuple[Message, ...]]
    pause_secs: float

    @property
    def total(self) -> int:
        return sum(len(messages) for messages in self.messages.values())


def simulate(
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Replay this CSV (timestamp, value, …) instead.", show_default=False)
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=90, help="Pumps, each a device of its own.")] = 3,
    rows: Annotated[int, typer.Option(min=1, help="Readings of each pump.")] = 600,
    batch: Annotated[int, typer.Option(min=1, max=500, help="Readings in a message.")] = 5,
    speed: Annotated[float, typer.Option(min=0, help="Times as fast as the machine; 0: as fast as it goes.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same machines, same faults.")] = 7,
    faults: Annotated[bool, typer.Option(help="Inject labelled faults.")] = True,
    repeated: Annotated[float, typer.Option(min=0, max=1, help="Share of messages that are sent twice.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of messages that come late.")] = 0.0,
    clock_jump: Annotated[float, typer.Option(help="Half-way, every machine's clock jumps by so many seconds.")] = 0.0,
    state: Annotated[Path, typer.Option(help="State folder of the running edge to send to.")] = DEFAULT_STATE,
    connection_string: Annotated[
        str | None,
        typer.Option(help="Send to this hub or gateway as this one device instead.", show_default=False),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", help="PEM file of the CA behind the gateway's certificate.", show_default=False),
    ] = None,
    to_file: Annotated[
        Path | None,
        typer.Option(
            help="Do not send; write the readings to this file as JSON Lines, faults as label.", show_default=False
        ),
    ] = None,
) -> None:
    """Send readings of simulated pumps, or of a CSV file, with the official device SDK."""
    console = Console(stderr=True)
    mishaps = Mishaps(repeated=repeated, late=late)

    async def main() -> None:
        pumps = [
            Pump(seed, name, int(time.time()) * 1_000_000, plan=FaultPlan(rows=rows) if faults else None)
            for name in machine_names(1 if connection_string else devices)
        ]
        if to_file is not None:
            write_readings(pumps, rows, to_file)
            console.print(f"wrote {rows * len(pumps):,} readings to {to_file}", highlight=False, soft_wrap=True)
            return
        if csv is not None:
            plan = replay_plan(read_replay(csv), batch=batch, speed=speed, mishaps=mishaps, seed=seed)
        else:
            plan = pump_plan(
                pumps, rows=rows, batch=batch, speed=speed, mishaps=mishaps, seed=seed, clock_jump_secs=clock_jump
            )
        accesses = await _accesses(plan, state, connection_string, ca)
        sent, again = await _send(plan, accesses, console, StateFolder(state).logs)
        console.print(f"{sent:,} messages acknowledged, {again:,} of them after another attempt", highlight=False)
        for pump in pumps if csv is None else ():
            for fault in pump.faults:
                console.print(
                    f"fault  {fault.machine}  {fault.kind.replace('_', ' '):<11}  {fault.signal:<11}  "
                    f"rows {fault.first} to {fault.last}",
                    highlight=False,
                )

    run(_NAME, main)


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


async def _accesses(plan: Plan, state: Path, connection_string: str | None, ca: Path | None) -> dict[str, Access]:
    if connection_string is not None:
        access = Access.from_files(connection_string, ca)
        access.device_id  # noqa: B018 - refuses a text that names no device
        return dict.fromkeys(plan.names, access)
    folder = StateFolder(state)
    info, control = EdgeInfo.of_folder(folder), Control(folder.control_socket)
    return {name: info.access(name, await control.create_device(name)) for name in plan.names}


async def _send(plan: Plan, accesses: dict[str, Access], console: Console, logs: Path) -> tuple[int, int]:
    """Messages acknowledged, and further attempts that it took."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with sdk_log(logs), Progress(*columns, console=console) as progress:
        task = progress.add_task("messages", total=plan.total)
        async with contextlib.AsyncExitStack() as stack:
            devices = {
                name: await stack.enter_async_context(Device(access, note=progress.console.print))
                for name, access in accesses.items()
            }
            await asyncio.gather(*(device.connect(attempts=_FIRST_CONNECTS) for device in devices.values()))
            async with asyncio.TaskGroup() as group:
                for name, device in devices.items():
                    group.create_task(
                        device.send_all(
                            plan.messages[name], pause_secs=plan.pause_secs, progress=lambda _: progress.advance(task)
                        )
                    )
    records = [device.record for device in devices.values()]
    return plan.total, sum(record.attempts - len(record.attempted) for record in records)
