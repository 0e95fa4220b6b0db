"""A local edge: store, certificates, MQTT server, workload sockets and control API, started and stopped as one."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import socket
import ssl
import weakref
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import msgspec

from simulator.runtime.config import RuntimeConfig, RuntimeFailed
from simulator.runtime.connection import Connection
from simulator.runtime.control import ControlServer
from simulator.runtime.hub import EDGE_AGENT, EDGE_HUB, LocalHub
from simulator.runtime.identities import Identity, Registry
from simulator.runtime.kill_points import make_reach
from simulator.runtime.listening import listen_anywhere, listen_on
from simulator.runtime.manifest import read_manifest
from simulator.runtime.methods import RESPONSE_TIMEOUT_SECS
from simulator.runtime.pki import Pki
from simulator.runtime.run_folder import open_run_folder, remove_run_folder
from simulator.runtime.store import Store, StoreFailed
from simulator.runtime.timing import Pace
from simulator.runtime.twins import JsonObject
from simulator.runtime.workload import API_VERSION, Workload

_LOG = logging.getLogger(__name__)
_CLOSE_WAIT_SECS = 3.0
_APPLIED = "manifest_sha256"  # of the one that the last start was given


class LocalEdge:
    """`async with LocalEdge(config) as edge:` runs it; see the package's docstring for a tour."""

    def __init__(self, config: RuntimeConfig) -> None:
        self.config = config
        self._stack = contextlib.AsyncExitStack()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._reach = make_reach(config.kill_at)

    # --- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Raises RuntimeFailed with one line that says what to do."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        config = self.config
        self.state_dir = config.state_dir.absolute()
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_state()
        store = self._open_store()
        self.run_dir = open_run_folder(self.state_dir)
        self._stack.callback(remove_run_folder, self.state_dir)
        self.address, sock = self._listen(store)
        self._stack.callback(sock.close)
        self.gateway_host = config.gateway_host or self.address
        self.pki = Pki(self.state_dir / "certificates")
        secs = config.server_certificate_secs
        self.pki.ensure_server_certificate(
            self.gateway_host,
            (self.address, "edgehub", *config.also_named),
            None if secs is None else timedelta(seconds=secs),
        )
        self.ca_file = self.pki.root_file
        self.upstream_file = self.state_dir / "upstream.jsonl"
        self.registry = Registry(store)
        for module_id in ("", EDGE_AGENT, EDGE_HUB):
            self.registry.ensure(config.device_id, module_id)
        self._start_hub(store)
        await self._serve(sock)
        self._workload = Workload(self.registry, self.pki, config.device_id, self.gateway_host, self.run_dir)
        self._stack.push_async_callback(self._workload.stop)
        for identity in self.registry.modules_of(config.device_id):
            await self._workload.start(identity.module)
        control = ControlServer(self, self.run_dir / "control.sock")
        await control.start()
        self._stack.push_async_callback(control.stop)
        self.control_socket = control.file
        store.flush()

    def _lock_state(self) -> None:
        """One runtime per state folder; the lock ends with the process, however it ends."""
        stream = self._stack.enter_context((self.state_dir / "lock").open("w"))
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeFailed(f"another runtime uses {self.state_dir}; stop it or choose another folder") from None

    def _open_store(self) -> Store:
        try:
            store = Store(self.state_dir / "runtime.db", self._reach)
        except StoreFailed as error:
            raise RuntimeFailed(f"{error}; choose another state folder") from None
        self._stack.callback(store.close)
        return store

    def _listen(self, store: Store) -> tuple[str, socket.socket]:
        """The configured address, else the one of the last start (modules know it), else a free one."""
        address = self.config.address or store.get_meta("address")
        if address is not None:
            sock = listen_on(address, self.config.port)
        else:
            address, sock = listen_anywhere(self.config.port)
        store.set_meta("address", address)
        return address, sock

    def _start_hub(self, store: Store) -> None:
        config = self.config
        limit = store.get_meta("max_clients")
        self.hub = LocalHub(
            store,
            self.registry,
            device_id=config.device_id,
            hosts=(config.hub_host_name, self.gateway_host),
            upstream_file=self.upstream_file,
            pace=Pace(config.time_scale),
            max_clients=int(limit) if limit else config.max_clients,
            reach=self._reach,
        )
        self._store = store
        self._stack.push_async_callback(self.hub.stop)
        for work, name in ((self.hub.run(), "hub"), (store.keep_log_short(), "checkpoints")):
            self._stack.push_async_callback(_end, asyncio.create_task(work, name=name))

    async def _serve(self, sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.pki.chain_file, self.pki.key_file)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, sock=sock, ssl=context)
        self._stack.push_async_callback(self._close_server, server)

    def _accept(self) -> Connection:
        connection = Connection(self.hub)
        self._connections.add(connection)
        return connection

    async def _close_server(self, server: asyncio.Server) -> None:
        server.close()
        for connection in list(self._connections):  # also those that never sent CONNECT
            connection.close("the hub stops", abnormal=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), _CLOSE_WAIT_SECS)

    # --- identities --------------------------------------------------------------------------------------------------

    async def add_module(self, module_id: str) -> dict[str, str]:
        """Makes the module if it is new, serves its workload socket, and returns its process's environment."""
        self.registry.ensure(self.config.device_id, module_id)
        self.flush()
        await self._workload.start(module_id)
        return self.module_environment(module_id)

    def module_environment(self, module_id: str) -> dict[str, str]:
        """The variables that edgeAgent sets. Raises KeyError for a module that does not exist."""
        identity = self._identity(self.config.device_id, module_id)
        return {
            "IOTEDGE_WORKLOADURI": self._workload.uri_of(module_id),
            "IOTEDGE_AUTHSCHEME": "sasToken",
            "IOTEDGE_MODULEGENERATIONID": identity.generation,
            "IOTEDGE_IOTHUBHOSTNAME": self.config.hub_host_name,
            "IOTEDGE_GATEWAYHOSTNAME": self.gateway_host,
            "IOTEDGE_DEVICEID": self.config.device_id,
            "IOTEDGE_MODULEID": module_id,
            "IOTEDGE_APIVERSION": API_VERSION,
        }

    async def add_device(self, device_id: str) -> str:
        """Makes the leaf device if it is new; its connection string, through this gateway. Trust `ca_file`."""
        self.registry.ensure(device_id)
        self.flush()
        return self.connection_string(device_id)

    def connection_string(self, device_id: str, module_id: str = "") -> str:
        """With GatewayHostName. Raises KeyError for an identity that does not exist."""
        identity = self._identity(device_id, module_id)
        parts = [f"HostName={self.config.hub_host_name}", f"DeviceId={device_id}"]
        if module_id:
            parts.append(f"ModuleId={module_id}")
        parts += [f"SharedAccessKey={identity.primary_key}", f"GatewayHostName={self.gateway_host}"]
        return ";".join(parts)

    async def remove_identity(self, device_id: str, module_id: str = "") -> None:
        """The identity, its twin and its connection go; a device takes its modules along."""
        for identity in self.registry.remove(device_id, module_id):
            self.hub.close_client(identity.client_id, "the identity was removed")
            self.hub.twins.delete(identity.client_id)
            if identity.device == self.config.device_id and identity.module:
                await self._workload.stop(identity.module)
        self.flush()

    def _identity(self, device_id: str, module_id: str) -> Identity:
        identity = self.registry.get(device_id, module_id)
        if identity is None:
            raise KeyError(f"{device_id}/{module_id}" if module_id else device_id)
        return identity

    # --- configuration, twins, methods -------------------------------------------------------------------------------

    async def apply_manifest(self, document: Mapping[str, Any]) -> None:
        """Makes the manifest's modules, replaces every listed module's desired properties, takes the routes.

        Raises RuntimeFailed for what is no manifest, RoutingError for routes that are refused: the rest is applied
        all the same and the old routes stay.
        """
        manifest = read_manifest(document)
        if manifest.max_clients is not None:
            self.hub.max_clients = manifest.max_clients
            self._store.set_meta("max_clients", str(manifest.max_clients))
        for module_id in manifest.modules:
            await self.add_module(module_id)
        for module_id, desired in manifest.desired.items():
            if module_id != EDGE_HUB:
                await self.add_module(module_id)
                self.hub.twins.replace_desired(self._client_id(module_id), desired)
        self.flush()
        if EDGE_HUB in manifest.desired:
            self.set_edge_hub_config(manifest.desired[EDGE_HUB])

    async def apply_new_manifest(self, document: Mapping[str, Any]) -> None:
        """`apply_manifest`, unless the last start was given the same one: what operators have set since then stays."""
        digest = _digest(document)
        if self._store.get_meta(_APPLIED) != digest:
            await self.apply_manifest(document)
            self._store.set_meta(_APPLIED, digest)
            self.sync()

    def set_edge_hub_config(self, desired: Mapping[str, Any]) -> None:
        """Replaces the routes. Raises RoutingError, names the offending key, and keeps the old ones."""
        self.hub.configure(desired)
        self.flush()

    def set_module_desired(self, module_id: str, patch: Mapping[str, Any]) -> int:
        """Merges a desired patch, as an operator does; returns the new `$version`."""
        twin = self.hub.twins.patch_desired(self._client_id(module_id), patch)
        self.flush()
        return twin.desired_version

    def module_reported(self, module_id: str) -> JsonObject:
        return self.hub.twins.get(self._client_id(module_id)).reported

    async def invoke_method(
        self,
        module_id: str,
        name: str,
        payload: object = None,
        *,
        response_timeout_secs: float = RESPONSE_TIMEOUT_SECS,
        connect_timeout_secs: float = 0.0,
    ) -> tuple[int, Any]:
        """(status, payload) of the module's answer. Raises MethodFailed (404 or 504)."""
        status, body = await self.hub.methods.invoke(
            self._client_id(module_id),
            name,
            msgspec.json.encode(payload),
            response_timeout_secs=response_timeout_secs,
            connect_timeout_secs=connect_timeout_secs,
        )
        return status, msgspec.json.decode(body) if body else None

    def flush(self) -> None:
        """Commits what was changed; clients' packets do this by themselves."""
        self._store.flush()

    def sync(self) -> None:
        """What IoT Hub keeps for this edge survives the edge's power: waits for the disk."""
        self._store.sync()

    def readiness(self) -> dict[str, Any]:
        """What a client, or whoever started the process, needs to know."""
        return {
            "gateway_host": self.gateway_host,
            "address": self.address,
            "port": self.config.port,
            "device_id": self.config.device_id,
            "ca_file": str(self.ca_file),
            "control_socket": str(self.control_socket),
            "upstream_file": str(self.upstream_file),
        }

    def stats(self) -> dict[str, Any]:
        """Queue lengths by endpoint and priority, connected clients, counters."""
        return self.hub.stats()

    def _client_id(self, module_id: str) -> str:
        return f"{self.config.device_id}/{module_id}"


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
