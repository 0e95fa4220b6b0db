"""`edgeweir run`: edgeHub, storage and modules, up until Ctrl-C."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from simulator.commands.running import run
from simulator.project import DEFAULT_STATE, find_root, locate_state

if TYPE_CHECKING:
    from simulator.local_site import LocalSite

_NAME = "run"
_REPORT_SECS = 5.0
# Where toxiproxy's own clients look.
TOXIPROXY_PORT = 8474


def run_edge(
    state: Annotated[Path, typer.Option(help="Folder for everything that survives a restart.")] = DEFAULT_STATE,
    bundle: Annotated[
        Path | None, typer.Option(help="Model bundle to score with: folder or zip.", show_default=False)
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Compliance policy. [the router's example]", show_default=False)
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="Deployment template. [deployment.template.json]", show_default=False)
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option("--module", "-m", help="Run only this module; may be repeated. [all]")
    ] = None,
    scale: Annotated[float, typer.Option(min=1, help="Divide edgeHub's and edgeAgent's own waits.")] = 1.0,
    faults: Annotated[
        bool, typer.Option("--faults", help="A fault proxy on each link, to be broken with `edgeweir fault`.")
    ] = False,
    faults_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where --faults serves toxiproxy's HTTP API; 0: any free port.")
    ] = TOXIPROXY_PORT,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the processes' lines.")] = False,
) -> None:
    """Run the local edge: edgeHub, storage and modules of the deployment template, until Ctrl-C."""
    from simulator.local_site import SiteConfig, run_site

    console = Console()

    async def main() -> None:
        config = SiteConfig(
            root=find_root(),
            state=locate_state(state),
            template=template,
            modules=module,
            bundle=bundle,
            policy=policy,
            fault_proxies=faults,
            time_scale=scale,
            console=None if quiet else console,
            note=lambda text: console.print(text, style="dim", highlight=False),
        )
        async with run_site(config) as site:
            await site.wait_until_connected()
            async with contextlib.AsyncExitStack() as stack:
                url = await stack.enter_async_context(offer_faults(site, faults_port)) if faults else None
                _show(console, site, state, url, await _complaints(site))
                await asyncio.Event().wait()

    # Stopping it is how it ends.
    run(_NAME, main, interrupted=0)


@contextlib.asynccontextmanager
async def offer_faults(site: "LocalSite", port: int) -> AsyncIterator[str]:
    """The URL of the faults' API; `edgeweir fault` finds it in the state folder."""
    from simulator.fault_proxy.api import serve_faults

    async with serve_faults(site.links, port=port) as url:
        site.folder.faults_url.write_text(url, encoding="ascii")
        try:
            yield url
        finally:
            site.folder.faults_url.unlink(missing_ok=True)


async def _complaints(site: "LocalSite") -> list[tuple[str, str]]:
    """What the modules are not content with, once each of them has said how it is, or after a few seconds."""
    complaints: list[tuple[str, str]] = []
    deadline = time.monotonic() + _REPORT_SECS
    for module in site.modules:
        health: object = None
        while health is None and time.monotonic() < deadline:
            reported = (await site.twin(module))["properties"]["reported"]
            health = reported.get("health") if "settings" in reported else None
            await asyncio.sleep(0.1)
        reasons = health.get("reasons", ()) if isinstance(health, dict) else ()
        complaints.extend((module, f"{reason['code']}: {reason['detail']}") for reason in reasons)
    return complaints


def _show(
    console: Console, site: "LocalSite", state: Path, faults: str | None, complaints: list[tuple[str, str]]
) -> None:
    option = "" if state == DEFAULT_STATE else f" --state {state}"
    lines = [
        ("edgeHub", f"{site.info.gateway_host}:{site.info.port} (MQTT over TLS), device {site.info.device_id}"),
        ("trust", site.info.ca_file),
        *((name, f"{site.http_url(name)}/metrics") for name in site.modules),
        ("logs", str(site.folder.logs)),
        ("send data", f"edgeweir simulate{option}"),
        ("settings", f"edgeweir twin get scorer{option}"),
    ]
    if faults is not None:
        lines.append(("faults", f"edgeweir fault list{option} (toxiproxy's API: {faults})"))
    if site.azurite is not None:
        secret = site.folder.etc("uploader") / "secrets/storage"
        lines.insert(2, ("storage", f"http://127.0.0.1:{site.azurite.port} (connection string: {secret})"))
    if "scorer" in site.modules and not site.folder.has_bundle():
        lines.append(("no model", "the scorer holds everything back; train one, then start again with --bundle"))
        complaints = [(module, text) for module, text in complaints if not text.startswith("no_model")]
    console.print()
    for name, text in lines:
        console.print(f"[bold]{name:<15}[/] {text}", highlight=False, soft_wrap=True)
    for module, text in complaints:
        console.print(f"[bold yellow]{module:<15}[/] {escape(text)}", highlight=False, soft_wrap=True)
    console.print("\nup; Ctrl-C stops it\n", highlight=False)
