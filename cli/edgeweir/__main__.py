"""`edgeweir`: one command; every installed distribution adds its own subcommands.

A distribution names a `register(app)` function in the entry-point group `edgeweir.commands`.
"""

from importlib.metadata import entry_points

import typer

COMMANDS_GROUP = "edgeweir.commands"


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="edgeweir",
        help="Bring a trained model to where data is made.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for entry in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def main() -> None:
    build_app()()


if __name__ == "__main__":
    main()
