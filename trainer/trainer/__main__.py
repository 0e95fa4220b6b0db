"""`python -m trainer`: the same as `edgeweir train`."""

import typer

from trainer.command import train_command

if __name__ == "__main__":
    typer.run(train_command)
