"""`edgeweir twin get|set MODULE` and `edgeweir method MODULE NAME`, against the running local edge."""

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.commands.running import run
from simulator.errors import UserError
from simulator.folders import StateFolder
from simulator.project import DEFAULT_STATE, locate_state

if TYPE_CHECKING:
    from simulator.control import Control
    from simulator.local_site import EdgeInfo

_State = Annotated[Path, typer.Option(help="State folder of the running edge.")]
_Module = Annotated[str, typer.Argument(help="Module id, as in the deployment.", show_default=False)]

# A module takes a patch when it comes, and reports at its own pace.
_ANSWER_SECS = 10.0

twin = typer.Typer(help="Read or change a module's twin.", no_args_is_help=True)


@twin.command("get")
def twin_get(module: _Module, state: _State = DEFAULT_STATE) -> None:
    """Print a module's desired and reported properties."""

    async def main() -> None:
        info, control = _edge(state)
        answer = await control.twin(info.device_id, module)
        _show({name: _plain(answer["properties"][name]) for name in ("desired", "reported")})

    run("twin get", main)


@twin.command("set")
def twin_set(
    module: _Module,
    patch: Annotated[
        str, typer.Argument(help="JSON object to merge into the desired properties; null deletes.", show_default=False)
    ],
    state: _State = DEFAULT_STATE,
) -> None:
    """Merge a patch into a module's desired properties; exit code 1 when the module refuses it."""

    async def main() -> bool:
        document = parse_json(patch, "the patch")
        if not isinstance(document, dict):
            raise UserError("the patch is no JSON object; write for example '{\"batch_max_age_secs\": 10}'")
        info, control = _edge(state)
        answer = await control.set_desired(info.device_id, module, document)
        desired = answer["properties"]["desired"]
        _show({"desired": _plain(desired)})
        settings = await _outcome(control, info.device_id, module, int(desired["$version"]))
        typer.echo(describe_outcome(module, settings), err=True)
        return settings is not None and settings.get("outcome") == "refused"

    if run("twin set", main):
        raise typer.Exit(1)


async def _outcome(control: "Control", device: str, module: str, version: int) -> dict[str, Any] | None:
    """What the module reports of this version of its settings; None when it says nothing in time."""
    deadline = time.monotonic() + _ANSWER_SECS
    while time.monotonic() < deadline:
        twin_now = await control.twin(device, module)
        settings = twin_now["properties"]["reported"].get("settings")
        if isinstance(settings, dict) and settings.get("version", 0) >= version:
            return settings
        await asyncio.sleep(0.2)
    return None


def describe_outcome(module: str, settings: dict[str, Any] | None) -> str:
    """One line."""
    if settings is None:
        return f"{module} has not answered yet; look again with: edgeweir twin get {module}"
    if settings.get("outcome") == "refused":
        return f"refused by {module}: {settings.get('path')}: {settings.get('reason')}"
    unknown = settings.get("unknown") or ()
    ignored = f"; it does not know {', '.join(unknown)}" if unknown else ""
    return f"accepted by {module}{ignored}"


def method(
    module: _Module,
    name: Annotated[str, typer.Argument(help="Name of the direct method.", show_default=False)],
    payload: Annotated[str, typer.Argument(help="JSON payload.")] = "null",
    state: _State = DEFAULT_STATE,
    timeout_secs: Annotated[int, typer.Option("--timeout", min=5, max=300, help="Seconds to wait for.")] = 30,
) -> None:
    """Call a module's direct method; exit code 1 when it answers with a status of 400 or more."""

    async def main() -> int:
        document = parse_json(payload, "the payload")
        info, control = _edge(state)
        status, answer = await control.call_method(info.device_id, module, name, document, timeout_secs=timeout_secs)
        _show({"status": status, "payload": answer})
        return status

    if run("method", main) >= 400:
        raise typer.Exit(1)


def parse_json(text: str, what: str) -> Any:
    """Raises UserError saying where the text stops being JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{what} is not JSON: {error.msg} at character {error.pos + 1}") from None


def _edge(state: Path) -> "tuple[EdgeInfo, Control]":
    from simulator.control import Control
    from simulator.local_site import EdgeInfo

    folder = StateFolder(locate_state(state))
    return EdgeInfo.of_folder(folder), Control(folder.control_socket)


def _plain(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != "$metadata"}


def _show(document: object) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
