"""`edgeweir simulate`: devices that send machine data, or a CSV, to the running edge or to any gateway or hub."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simulator.commands.running import run
from simulator.delivery import Mishaps
from simulator.errors import UserError
from simulator.machines import FaultPlan, Pump, machine_names
from simulator.project import DEFAULT_STATE, locate_state
from simulator.replay import read_replay

_NAME = "simulate"


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
    from simulator.folders import StateFolder
    from simulator.sending import find_accesses, pump_plan, replay_plan, send, write_readings

    console = Console(stderr=True)
    mishaps = Mishaps(repeated=repeated, late=late)

    async def main() -> None:
        pumps = [
            Pump(seed, name, int(time.time()) * 1_000_000, plan=FaultPlan(rows=rows) if faults else None)
            for name in machine_names(1 if connection_string else devices)
        ]
        if to_file is not None:
            if csv is not None:
                raise UserError("--to-file writes the readings of pumps; it does not go with --csv")
            write_readings(pumps, rows, to_file)
            console.print(f"wrote {rows * len(pumps):,} readings to {to_file}", highlight=False, soft_wrap=True)
            return
        if csv is not None:
            plan = replay_plan(read_replay(csv), batch=batch, speed=speed, mishaps=mishaps, seed=seed)
        else:
            plan = pump_plan(
                pumps, rows=rows, batch=batch, speed=speed, mishaps=mishaps, seed=seed, clock_jump_secs=clock_jump
            )
        folder = locate_state(state)
        accesses = await find_accesses(plan, folder, connection_string, ca)
        sent, again = await send(plan, accesses, console, StateFolder(folder).logs)
        console.print(f"{sent:,} messages acknowledged, {again:,} of them after another attempt", highlight=False)
        for pump in pumps if csv is None else ():
            for fault in pump.faults:
                console.print(
                    f"fault  {fault.machine}  {fault.kind.replace('_', ' '):<11}  {fault.signal:<11}  "
                    f"rows {fault.first} to {fault.last}",
                    highlight=False,
                )

    run(_NAME, main)
