"""`edgeweir fault list|add|remove|lose-response|reset`: break the links of a running edge, and mend them."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.commands.running import run
from simulator.errors import UserError
from simulator.project import DEFAULT_STATE, locate_state

if TYPE_CHECKING:
    from simulator.fault_client import FaultClient

_Link = Annotated[str, typer.Argument(help="Name of the link, as `edgeweir fault list` shows it.", show_default=False)]
_State = Annotated[Path, typer.Option(help="State folder of the running edge.")]
_Api = Annotated[
    str | None,
    typer.Option("--api", help="URL of the faults' API (of `edgeweir proxy`) in place of a state folder."),
]

fault = typer.Typer(help="Break the links of a running edge (`edgeweir run --faults`).", no_args_is_help=True)


@fault.command("list")
def fault_list(state: _State = DEFAULT_STATE, api: _Api = None) -> None:
    """Print each link, where it leads, and the toxics on it."""

    async def main() -> None:
        for name, proxy in (await _client(state, api).proxies()).items():
            typer.echo(f"{name:<16} {proxy['listen']} -> {proxy['upstream']}")
            for toxic in proxy["toxics"]:
                typer.echo(f"  {describe_toxic(toxic)}")

    run("fault list", main)


@fault.command("add")
def fault_add(
    link: _Link,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="TOXIC",
            help="latency, down, bandwidth, slow_close, timeout, reset_peer, slicer or limit_data.",
            show_default=False,
        ),
    ],
    attributes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=NUMBER]...", help="For example latency=500 jitter=50.")
    ] = None,
    stream: Annotated[str, typer.Option(help="upstream (to the server) or downstream.")] = "downstream",
    toxicity: Annotated[float, typer.Option(help="Share of the connections that it applies to, 0 to 1.")] = 1.0,
    name: Annotated[str, typer.Option(help="To remove it by. [TOXIC_STREAM]", show_default=False)] = "",
    state: _State = DEFAULT_STATE,
    api: _Api = None,
) -> None:
    """Put a toxic on a link; open connections feel it too."""

    async def main() -> None:
        if not 0 <= toxicity <= 1:
            raise UserError(f"toxicity is {toxicity:g}; it must be from 0 to 1")
        toxic: dict[str, Any] = {"type": kind, "stream": stream, "toxicity": toxicity, "name": name}
        toxic["attributes"] = dict(read_attribute(each) for each in attributes or ())
        typer.echo(describe_toxic(await _client(state, api).add(link, toxic)))

    run("fault add", main)


@fault.command("remove")
def fault_remove(
    link: _Link,
    toxic: Annotated[str, typer.Argument(help="Name of the toxic.", show_default=False)],
    state: _State = DEFAULT_STATE,
    api: _Api = None,
) -> None:
    """Take a toxic off a link."""
    run("fault remove", lambda: _client(state, api).remove(link, toxic))


@fault.command("lose-response")
def fault_lose_response(
    link: _Link,
    method: Annotated[str | None, typer.Option(help="Of requests with this method only.", show_default=False)] = None,
    path: Annotated[str | None, typer.Option(help="Of requests with this in their path.", show_default=False)] = None,
    nth: Annotated[int, typer.Option(help="Which of the requests that match, from now on; 0: each of them.")] = 1,
    then: Annotated[str, typer.Option(help="reset the client's connection, or stay silent on it.")] = "reset",
    state: _State = DEFAULT_STATE,
    api: _Api = None,
) -> None:
    """Deliver a request whole and let nothing of its response come back (plain HTTP only: the link `storage`)."""
    rule: dict[str, Any] = {"nth": nth or None, "then": then}
    rule |= {key: value for key, value in (("method", method), ("path", path)) if value is not None}
    run("fault lose-response", lambda: _client(state, api).lose_response(link, rule))


@fault.command("reset")
def fault_reset(state: _State = DEFAULT_STATE, api: _Api = None) -> None:
    """Take every toxic off every link."""
    run("fault reset", lambda: _client(state, api).reset())


def read_attribute(text: str) -> tuple[str, float]:
    """NAME=NUMBER. Raises UserError."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UserError(f"{text!r} is no attribute; write for example latency=500") from None
    return name, int(number) if number.is_integer() else number


def describe_toxic(toxic: dict[str, Any]) -> str:
    """One line."""
    attributes = " ".join(f"{name}={value:g}" for name, value in toxic["attributes"].items())
    if toxic["type"] == "down":
        return str(toxic["name"])
    share = "" if toxic["toxicity"] == 1 else f" toxicity={toxic['toxicity']:g}"
    return f"{toxic['name']}: {toxic['type']} {attributes} {toxic['stream']}{share}"


def _client(state: Path, api: str | None) -> "FaultClient":
    from simulator.fault_client import FaultClient

    return FaultClient(api) if api else FaultClient.of_folder(locate_state(state))
