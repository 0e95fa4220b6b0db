"""The simulator's subcommands of `edgeweir`."""

import typer

from simulator.commands.demo import demo
from simulator.commands.edge import run_edge
from simulator.commands.fault import fault
from simulator.commands.proxy import proxy
from simulator.commands.simulate import simulate
from simulator.commands.twin import method, twin


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("run")(run_edge)
    app.command("simulate")(simulate)
    app.add_typer(twin, name="twin")
    app.command("method")(method)
    app.add_typer(fault, name="fault")
    app.command("proxy")(proxy)
