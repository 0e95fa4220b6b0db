"""The simulator's subcommands of `edgeweir`. Imports are made when a command runs: the SDKs take a second to load."""

import typer


def register(app: typer.Typer) -> None:
    from simulator.commands.demo import demo

    app.command("demo")(demo)
