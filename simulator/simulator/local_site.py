"""Everything that runs on one edge VM, here as processes of this machine: edgeHub, storage, modules.

    storage    Azurite
    edgeHub    `python -m simulator.runtime`, a process of its own, restarted like a module
    modules    what the deployment template asks for, started and restarted as edgeAgent does
    links      fault proxies: always one before storage, and if asked for one between edgeHub and each of its clients

One state folder holds all of it; nothing is left behind but that folder.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from simulator.azurite import Azurite, run_azurite
from simulator.control import Control, Refusal
from simulator.devices import Access
from simulator.errors import UserError
from simulator.fault_proxy import FaultProxy
from simulator.folders import StateFolder
from simulator.links import DEVICES, STORAGE, Links
from simulator.logbook import Logbook
from simulator.manifest import Deployment, ModuleSpec, load_deployment
from simulator.runtime.config import DEFAULT_HUB_HOST
from simulator.scrape import Meter
from simulator.supervisor import COOL_OFF_LIMIT_SECS, Supervisor

EDGE_HUB = "edgeHub"
_READY_SECS = 30.0
_CONNECT_SECS = 60.0
_FIRST_HTTP_PORT = 9601
_EXAMPLE_POLICY = Path("modules/anomaly_router/policy.example.yaml")
_RUNTIME_FAILS = "edgeweir runtime: "
# What a container would have; anything else of this shell (proxies above all) stays out of the modules.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")


class EdgeInfo(msgspec.Struct, frozen=True):
    """What the runtime says when it is ready, kept as edge.json in the state folder."""

    gateway_host: str
    address: str
    port: int
    device_id: str
    ca_file: str
    control_socket: str
    upstream_file: str
    devices_host: str = ""
    """Where devices are to connect, when it is not the gateway itself: a fault proxy before it."""

    @classmethod
    def of_folder(cls, folder: StateFolder) -> "EdgeInfo":
        """Of the edge that runs there. Raises UserError when none ever did."""
        try:
            return msgspec.json.decode(folder.info.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            raise UserError(f"no edge is running in {folder.path}; start one with: edgeweir run") from None

    def access(self, device: str, key: str) -> Access:
        """How the device with this key reaches the edge."""
        parts = (
            f"HostName={DEFAULT_HUB_HOST}",
            f"DeviceId={device}",
            f"SharedAccessKey={key}",
            f"GatewayHostName={self.devices_host or self.gateway_host}",
        )
        return Access(";".join(parts), Path(self.ca_file).read_text(encoding="ascii"))


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """`desired` is merged into the template's desired properties; `modules` None means all of the template's."""

    root: Path
    state: Path
    template: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    modules: Sequence[str] | None = None
    bundle: Path | None = None
    policy: Path | None = None
    desired: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    storage: bool = True
    fault_proxies: bool = False
    """A fault proxy between edgeHub and each module, and one for all devices; storage has one in any case."""
    time_scale: float = 1.0
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Extra environment for every start of a module, or of edgeHub; `LocalSite.module_env` goes on top of it."""
    cool_off_limit_secs: float = COOL_OFF_LIMIT_SECS
    """The longest wait before a restart, before it is divided: a site on which everything is killed keeps it short."""
    console: Console | None = None
    """Where the processes' lines are shown; None: in their log files only."""
    note: Callable[[str], None] = lambda text: None
    """Told what is being started."""


@dataclass
class LocalSite:
    folder: StateFolder
    deployment: Deployment
    control: Control
    supervisor: Supervisor
    info: EdgeInfo
    azurite: Azurite | None
    links: dict[str, FaultProxy]
    """`storage`, `devices`, and each module by its name: its connection to edgeHub."""
    module_env: dict[str, dict[str, str]]
    """Extra environment for the next start of a module, or of edgeHub."""

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(name for name in self.supervisor.names if name != EDGE_HUB)

    def http_url(self, module: str) -> str:
        return f"http://{self.info.address}:{http_port(self.deployment, module)}"

    def meter(self, module: str) -> Meter:
        return Meter(f"{self.http_url(module)}/metrics")

    @property
    def container(self) -> str:
        """The blob container that the uploader writes to."""
        for destination in self.deployment.desired("uploader").get("destinations", ()):
            if destination.get("kind") == "azure_blob":
                return str(destination["container"])
        raise UserError("the uploader has no azure_blob destination")

    async def add_device(self, device: str) -> Access:
        return self.info.access(device, await self.control.create_device(device))

    async def twin(self, module: str) -> dict[str, Any]:
        return await self.control.twin(self.info.device_id, module)

    async def set_desired(self, module: str, patch: dict[str, Any]) -> dict[str, Any]:
        return await self.control.set_desired(self.info.device_id, module, patch)

    async def call_method(self, module: str, name: str, payload: object = None) -> tuple[int, Any]:
        return await self.control.call_method(self.info.device_id, module, name, payload)

    async def connected_modules(self) -> set[str]:
        clients = (await self.control.stats())["clients"]
        prefix = f"{self.info.device_id}/"
        return {client.removeprefix(prefix) for client in clients if client.startswith(prefix)}

    async def queued_for(self, module: str) -> int:
        """Messages for this module that it has not acknowledged, the one in its hands included."""
        queues = (await self.control.stats())["queues"]
        return sum(sum(lengths.values()) for name, lengths in queues.items() if name.startswith(f"{module}/"))

    async def wait_until_connected(self, secs: float = _CONNECT_SECS) -> None:
        """Raises UserError naming the modules that did not come, and the last line that the first of them said."""
        missing = {EDGE_HUB}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                while missing := await self._missing_modules():  # noqa: ASYNC110 - no event says it
                    await asyncio.sleep(0.1)
        if missing == {EDGE_HUB}:
            raise UserError(f"edgeHub does not answer; {self.last_line(EDGE_HUB)}")
        if missing:
            first = sorted(missing)[0]
            raise UserError(f"{', '.join(sorted(missing))} did not connect; {self.last_line(first)}")

    async def _missing_modules(self) -> set[str]:
        """Those that are not connected; edgeHub itself while it does not answer, because it may be restarting."""
        try:
            return set(self.modules) - await self.connected_modules()
        except UserError:
            return {EDGE_HUB}

    def last_line(self, name: str) -> str:
        log = self.folder.logs / f"{name}.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        said = lines[-1] if lines else "nothing"
        return f"the last line of {log}: {said}"


def http_port(deployment: Deployment, module: str) -> int:
    """Metrics and health of each module lie on ports of the edge's own loopback address, the same ones every time."""
    return _FIRST_HTTP_PORT + [spec.name for spec in deployment.modules].index(module)


@contextlib.asynccontextmanager
async def run_site(config: SiteConfig) -> AsyncIterator[LocalSite]:
    """A site that is up, but for the modules' connections. Raises UserError in one line for what a user can mend."""
    deployment = chosen(load_deployment(config.root, config.environ, template=config.template), config)
    folder = StateFolder(config.state)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder.locked())
        fill(folder, deployment, config)
        logbook = Logbook(folder.logs, config.console)
        stack.callback(logbook.close)
        # Before the supervisor: modules say goodbye through them.
        links = await stack.enter_async_context(Links())
        azurite = None
        if config.storage:
            config.note("starting storage (Azurite)")
            azurite = await stack.enter_async_context(
                run_azurite(config.root, folder.azurite, sink=logbook.sink("azurite"))
            )
            port = links.open(STORAGE, "127.0.0.1", to=("127.0.0.1", azurite.port), http=True)
            folder.put_secret("uploader", "storage", azurite.account.connection_string(port))
        supervisor = Supervisor(logbook, time_scale=config.time_scale, cool_off_limit_secs=config.cool_off_limit_secs)
        # Modules go first, so that they can still say goodbye to edgeHub.
        stack.push_async_callback(supervisor.stop, last=[EDGE_HUB])
        config.note("starting edgeHub")
        extra: dict[str, dict[str, str]] = {}
        if config.fault_proxies:
            links.open_for_devices(folder.devices_address)
        info = await start_runtime(supervisor, folder, deployment, config, extra, links.devices_host)
        if config.fault_proxies:
            links.by_name[DEVICES].server_address = (info.address, info.port)
            for spec in deployment.modules:
                links.open(spec.name, info.address, to=(info.address, info.port))
        control = Control(folder.control_socket)
        site = LocalSite(folder, deployment, control, supervisor, info, azurite, links.by_name, extra)
        config.note(f"starting {', '.join(spec.name for spec in deployment.modules)}")
        await supervisor.start(deployment.modules, lambda spec: module_environment(site, spec, config))
        yield site


def chosen(deployment: Deployment, config: SiteConfig) -> Deployment:
    """The deployment with the config's desired properties merged in, and only the wanted modules."""
    manifest = json.loads(json.dumps(deployment.manifest))
    for module, desired in config.desired.items():
        content = manifest["modulesContent"].setdefault(module, {}).setdefault("properties.desired", {})
        content.update(desired)
    known = [spec.name for spec in deployment.modules]
    for name in config.modules or ():
        if name not in known:
            raise UserError(f"the template has no module {name}, only {', '.join(known)}")
    wanted = known if config.modules is None else config.modules
    return Deployment(manifest, tuple(spec for spec in deployment.modules if spec.name in wanted))


def fill(folder: StateFolder, deployment: Deployment, config: SiteConfig) -> None:
    """Make what the modules find in their mounted folders. Raises UserError."""
    for spec in deployment.modules:
        folder.make_module(spec.name)
    names = [spec.name for spec in deployment.modules]
    if config.bundle is not None:
        folder.put_bundle(config.bundle)
    if config.policy is not None:
        folder.put_policy(config.policy)
    elif "anomaly_router" in names and not folder.has_policy():
        folder.put_policy(config.root / _EXAMPLE_POLICY)


async def start_runtime(
    supervisor: Supervisor,
    folder: StateFolder,
    deployment: Deployment,
    config: SiteConfig,
    extra: Mapping[str, Mapping[str, str]],
    devices_host: str = "",
) -> EdgeInfo:
    """edgeHub, ready. It applies a manifest once, over all its restarts: twins keep what operators set.

    `extra` is looked up at each start. Its certificate covers `devices_host` too, where that is given.

    Raises UserError with what the runtime said when it does not start.
    """
    command = [sys.executable, "-m", "simulator.runtime", "--state", str(folder.path), "--log-level", "INFO"]
    command += ["--time-scale", f"{config.time_scale:g}"]
    command += ["--manifest", str(folder.manifest)]
    command += ["--also-named", devices_host] if devices_host else []
    folder.manifest.write_text(json.dumps(deployment.manifest, indent=1), encoding="utf-8")
    answer: asyncio.Future[EdgeInfo | str] = asyncio.get_running_loop().create_future()

    def listen(line: str) -> None:
        if answer.done():
            return
        if line.startswith("{"):
            info = msgspec.structs.replace(msgspec.json.decode(line, type=EdgeInfo), devices_host=devices_host)
            folder.info.write_bytes(msgspec.json.encode(info))
            answer.set_result(info)
        elif line.startswith(_RUNTIME_FAILS):
            answer.set_result(line.removeprefix(_RUNTIME_FAILS))

    supervisor.observe(EDGE_HUB, listen)
    spec = ModuleSpec(EDGE_HUB, tuple(command), restart_policy="always", startup_order=0)

    async def environment_of(spec: ModuleSpec) -> dict[str, str]:
        always = config.environment.get(EDGE_HUB, {})
        return {**await _inherited_environment(spec), **always, **extra.get(EDGE_HUB, {})}

    await supervisor.start([spec], environment_of)
    try:
        found = await asyncio.wait_for(answer, _READY_SECS)
    except TimeoutError:
        raise UserError(f"edgeHub did not get ready in {_READY_SECS:g} s; see {folder.logs / EDGE_HUB}.log") from None
    if isinstance(found, str):
        raise UserError(f"edgeHub cannot start: {found}")
    return found


async def _inherited_environment(_: ModuleSpec) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1"}


async def module_environment(site: LocalSite, spec: ModuleSpec, config: SiteConfig) -> dict[str, str]:
    """As edgeAgent does it: the manifest's variables first, then the runtime's, which nothing may replace."""
    return {
        **await _inherited_environment(spec),
        "EDGEWEIR_TIME_SCALE": f"{config.time_scale:g}",
        "RuntimeLogLevel": "info",
        **spec.env,
        "EDGEWEIR_STATE_DIR": str(site.folder.var(spec.name)),
        "EDGEWEIR_CONFIG_DIR": str(site.folder.etc(spec.name)),
        "EDGEWEIR_HTTP_HOST": site.info.address,
        "EDGEWEIR_HTTP_PORT": str(http_port(site.deployment, spec.name)),
        **_by_way_of(site.links.get(spec.name)),
        **config.environment.get(spec.name, {}),
        **site.module_env.get(spec.name, {}),
        **await _runtime_variables(site, spec.name),
    }


def _by_way_of(link: FaultProxy | None) -> dict[str, str]:
    """On the gateway's own address, which is what its certificate is checked for."""
    return {} if link is None else {"EDGEWEIR_HUB_PORT": str(link.port)}


async def _runtime_variables(site: LocalSite, module: str) -> dict[str, str]:
    """Waits while edgeHub is down: a module that starts then would only fail."""
    while True:
        try:
            return await site.control.module_environment(module)
        except Refusal:
            raise
        except UserError:
            await asyncio.sleep(0.2)
