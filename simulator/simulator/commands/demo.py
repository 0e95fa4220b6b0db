"""`edgeweir demo`: the whole pipeline, put to the test, with a verdict."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from simulator.commands.running import fail, run
from simulator.project import find_root

if TYPE_CHECKING:
    from simulator.demo import Outcome

_NAME = "demo"
_FAILED = 1


def demo(
    seconds: Annotated[float, typer.Option(min=10, help="How long it should take, about.")] = 180.0,
    seed: Annotated[int, typer.Option(help="Same seed, same machines, same faults.")] = 7,
    devices: Annotated[int, typer.Option(min=1, max=90, help="Pumps, each a device of its own.")] = 12,
    scale: Annotated[float, typer.Option(min=1, help="Divide edgeHub's and edgeAgent's own waits.")] = 1.0,
    replay: Annotated[
        Path | None, typer.Option(help="Send this CSV (timestamp, value, …) in place of pumps.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the state folder: logs, spool, blobs.")] = False,
    state: Annotated[Path | None, typer.Option(help="State folder. [.work/demo]", show_default=False)] = None,
) -> None:
    """Train a model, start everything, send, break things, and check that nothing was lost or stored twice."""
    from simulator.report import last_line, passed

    console = Console()
    outcome = run(_NAME, lambda: _run(console, seconds, seed, devices, scale, replay, keep, state))
    typer.echo(last_line(outcome))
    if not passed(outcome):
        raise typer.Exit(_FAILED)


async def _run(
    console: Console,
    seconds: float,
    seed: int,
    devices: int,
    scale: float,
    replay: Path | None,
    keep: bool,
    state: Path | None,
) -> "Outcome":
    from simulator.demo import Demo, DemoFailed, DemoPlan, clear_state, plan_scenario
    from simulator.folders import StateFolder
    from simulator.report import passed, show_report
    from simulator.screen import open_screen

    root = find_root()
    plan = DemoPlan(
        root=root,
        state=(state or root / ".work/demo").absolute(),
        seconds=seconds,
        seed=seed,
        devices=devices,
        scale=scale,
        replay=replay,
    )
    start_micros = int(time.time()) * 1_000_000
    scene = await asyncio.to_thread(plan_scenario, plan, start_micros)
    folder = StateFolder(plan.state)
    clear_state(folder)
    timings = "real timings" if scale == 1 else f"timings scaled by {scale:g}"
    title = f"{scene.title}, {timings}, about {seconds / 60:.1f} min"
    console.print(f"[bold]edgeweir demo[/bold]  {title}", highlight=False, soft_wrap=True)
    with open_screen(console, scene.title) as screen:
        try:
            outcome = await Demo(plan, screen, scene, start_micros).run()
        except DemoFailed as error:
            fail(_NAME, f"{error}; see the logs in {folder.logs}", _FAILED)
    show_report(console, outcome)
    if keep or not passed(outcome):
        console.print(f"everything is kept in {plan.state}", highlight=False, soft_wrap=True)
    else:
        await asyncio.to_thread(shutil.rmtree, plan.state)
    return outcome
