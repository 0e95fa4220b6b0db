"""`edgeweir proxy LISTEN UPSTREAM`: one fault proxy by itself, between any two parts."""

import asyncio
import contextlib
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.commands.running import run
from simulator.errors import UserError

if TYPE_CHECKING:
    from simulator.fault_proxy import Step

_NAME = "proxy"
_Address = tuple[str, int]


def proxy(
    listen: Annotated[str, typer.Argument(help="[HOST:]PORT to listen on; port 0 is any free one.")],
    upstream: Annotated[str, typer.Argument(help="HOST:PORT to forward to.")],
    script: Annotated[
        Path | None, typer.Option(help="Schedule of faults, YAML or JSON; starts at once.", show_default=False)
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append a line for each HTTP exchange (JSON Lines, secrets masked).", show_default=False),
    ] = None,
    http: Annotated[bool, typer.Option("--http", help="Plain HTTP goes through: responses can be lost.")] = False,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="Of toxiproxy's HTTP API; 0: any free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same draws of toxicity, jitter and sizes.")] = 0,
) -> None:
    """Forward TCP to UPSTREAM, and break it: by a script, by `edgeweir fault --api`, by any toxiproxy client."""

    async def main() -> None:
        from simulator.fault_proxy import Lose, run_fault_proxy, run_schedule
        from simulator.fault_proxy.api import serve_faults
        from simulator.fault_proxy.record import Record
        from simulator.fault_proxy.script import read_script

        steps = [] if script is None else read_script(script)
        looks_at_http = http or record is not None or any(isinstance(step, Lose) for step in steps)
        host, port = read_address(listen)
        server_host, server_port = read_address(upstream)
        if not server_port:
            raise UserError(f"{upstream!r} is no HOST:PORT to forward to")
        await _refuse_unknown_host(server_host, server_port)
        async with contextlib.AsyncExitStack() as stack:
            running = run_fault_proxy(server_host, server_port, host=host, port=port, seed=seed, http=looks_at_http)
            try:
                made = await stack.enter_async_context(running)
            except OSError as error:
                raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            if record is not None:
                made.http.observe = stack.enter_context(Record(record, partial(_say_stopped, record)))
            url = await stack.enter_async_context(serve_faults({_NAME: made}, port=api_port))
            typer.echo(f"{made.address[0]}:{made.port} -> {upstream}; faults: edgeweir fault list --api {url}")
            await run_schedule(made, steps, passed_over=_say_passed_over)
            await asyncio.Event().wait()

    # Stopping it is how it ends.
    run(_NAME, main, interrupted=0)


async def _refuse_unknown_host(host: str, port: int) -> None:
    """To a client of the proxy, it would be resets and nothing else. Raises UserError."""
    try:
        await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise UserError(f"cannot forward to {host}:{port}: {error.strerror}") from None
    except UnicodeError:
        raise UserError(f"cannot forward to {host}:{port}: {host!r} is no name of a host") from None


def _say_stopped(record: Path, error: OSError) -> None:
    with contextlib.suppress(OSError):  # stderr may lie on the same full disk
        typer.echo(f"edgeweir {_NAME}: {record}: {error.strerror}; no exchange is recorded any more", err=True)


def _say_passed_over(step: "Step") -> None:
    from simulator.fault_proxy import Add

    what = f"{step.toxic.name} is there already" if isinstance(step, Add) else "what it removes is gone already"
    typer.echo(f"edgeweir {_NAME}: the script's step at {step.at_secs:g} is passed over: {what}", err=True)


def read_address(text: str) -> _Address:
    """[HOST:]PORT, on loopback unless a host is given. Raises UserError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"{text!r} is no HOST:PORT")
    return host or "127.0.0.1", int(port)
