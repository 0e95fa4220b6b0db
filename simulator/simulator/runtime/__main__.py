"""`python -m simulator.runtime --state DIR --manifest FILE`: one local edge as a process, until SIGTERM or SIGINT.

Prints one line of JSON when it is ready: where it listens, whom to trust, where the control socket is. Everything it
acknowledged survives its own kill -9; started again on the same folder it has the same address and certificates.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from simulator.runtime.config import DEFAULT_HUB_HOST, RuntimeConfig, RuntimeFailed
from simulator.runtime.edge import LocalEdge
from simulator.runtime.kill_points import VARIABLE as KILL_AT
from simulator.runtime.routing.errors import RoutingError


def main(
    state: Annotated[Path, typer.Option(help="Folder for everything that survives a restart.")],
    manifest: Annotated[
        Path | None, typer.Option(help="Deployment manifest to apply, unless it is the last applied.")
    ] = None,
    device_id: Annotated[str, typer.Option(help="Id of the edge device.")] = "local-edge",
    hub_host: Annotated[
        str, typer.Option(help="Host name of the IoT hub in tokens and user names.")
    ] = DEFAULT_HUB_HOST,
    address: Annotated[str | None, typer.Option(help="Loopback address; default: the last one, or a free one.")] = None,
    also_named: Annotated[
        list[str] | None, typer.Option(help="Name or address that the certificate covers too; may be repeated.")
    ] = None,
    time_scale: Annotated[float, typer.Option(help="Divides edgeHub's own waits.")] = 1.0,
    module: Annotated[list[str] | None, typer.Option(help="Module identity to make; may be repeated.")] = None,
    server_certificate_secs: Annotated[
        float | None,
        typer.Option(
            envvar="EDGEWEIR_SERVER_CERTIFICATE_SECS",
            help="Make a server certificate at this start, valid for so long; negative: it is over already.",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR; logs go to stderr.")] = "WARNING",
) -> None:
    logging.basicConfig(level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    config = RuntimeConfig(
        state_dir=state,
        device_id=device_id,
        hub_host_name=hub_host,
        address=address,
        also_named=tuple(also_named or ()),
        time_scale=time_scale,
        server_certificate_secs=server_certificate_secs,
        kill_at=os.environ.get(KILL_AT) or None,
    )
    try:
        document = None if manifest is None else json.loads(manifest.read_bytes())
        asyncio.run(_run(config, document, module or []))
    except (RuntimeFailed, RoutingError, OSError, ValueError) as error:
        typer.echo(f"edgeweir runtime: {error}", err=True)
        raise typer.Exit(1) from None


async def _run(config: RuntimeConfig, document: dict[str, Any] | None, modules: list[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with LocalEdge(config) as edge:
        if document is not None:
            await edge.apply_new_manifest(document)
        for module_id in modules:
            await edge.add_module(module_id)
        typer.echo(json.dumps(edge.readiness()))
        await stop.wait()


if __name__ == "__main__":
    typer.run(main)
