"""The hub: what edgeHub decides between a client's packet and the queues. One object, one thread, one event loop."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from simulator.runtime.auth import Authenticator, Verdict
from simulator.runtime.codec import Connect, Publish
from simulator.runtime.connection import Connection
from simulator.runtime.counters import Counters
from simulator.runtime.delivery import InputPump, Pump, UpstreamPump
from simulator.runtime.identities import Registry
from simulator.runtime.kill_points import Reach, pass_by
from simulator.runtime.messages import (
    MESSAGE_LIMIT_BYTES,
    BadPropertyBag,
    Message,
    message_size,
    parse_bag,
    split_properties,
)
from simulator.runtime.methods import Methods
from simulator.runtime.queues import Queues, Target
from simulator.runtime.routing.errors import ConfigError
from simulator.runtime.routing.hub_config import DEFAULT_PRIORITY, default_config, parse_hub_config
from simulator.runtime.routing.routes import UPSTREAM, Router
from simulator.runtime.sas import BadToken
from simulator.runtime.sessions import Sessions, Subscriptions
from simulator.runtime.store import Done, Store, StoreFailed
from simulator.runtime.timing import EXPIRED_CLEANUP_INTERVAL_SECS, TOKEN_CHECK_INTERVAL_SECS, Pace
from simulator.runtime.topics import (
    InboundTopic,
    MalformedTwinTopic,
    MethodResponse,
    TelemetryTopic,
    TwinGet,
    TwinPatch,
    UnknownTopic,
    parse_inbound,
)
from simulator.runtime.twin_service import TwinService
from simulator.runtime.twin_store import TwinStore

_LOG = logging.getLogger(__name__)
EDGE_HUB = "$edgeHub"
EDGE_AGENT = "$edgeAgent"
MAX_CLIENTS = 100
_CONFIG_KEY = "hub_config"


class LocalHub:
    """Implements `connection.Hub`. Build it inside a running loop; `run` does the background work."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        device_id: str,
        hosts: tuple[str, ...],
        upstream_file: Path,
        pace: Pace,
        max_clients: int = MAX_CLIENTS,
        reach: Reach = pass_by,
    ) -> None:
        self.pace = pace
        self.reach = reach
        self.device_id = device_id
        self.max_clients = max_clients
        self.counters = Counters()
        self.queues = Queues(store)
        self.twins = TwinService(TwinStore(store), self.find, pace)
        self.methods = Methods(self.find, pace)
        self.clients: dict[str, Connection] = {}
        self._connected_at: dict[str, str] = {}
        self._store = store
        self._sessions = Sessions(store)
        self._auth = Authenticator(registry, hosts, pace)
        self._open: set[Connection] = set()
        self._upstream_file = upstream_file
        self._pumps: dict[str, tuple[Pump, asyncio.Task[None]]] = {}
        saved = store.get_meta(_CONFIG_KEY)
        config = parse_hub_config(msgspec.json.decode(saved)) if saved else default_config()
        self._router = Router(config)
        self._start_pumps()

    def find(self, client_id: str) -> Connection | None:
        """The bound connection of a client."""
        return self.clients.get(client_id)

    # --- connections -------------------------------------------------------------------------------------------------

    def admit(self, connect: Connect) -> Verdict:
        return self._auth.judge(connect)

    def open_session(self, connection: Connection, *, clean: bool) -> bool:
        """Restores the client's subscriptions, or forgets them; whether a session was there."""
        self._open.add(connection)
        stored = self._sessions.load(connection.client_id)
        if clean:
            if stored:
                self._sessions.delete(connection.client_id)
            return False
        connection.restore(stored)
        return bool(stored)

    def bind(self, connection: Connection) -> None:
        """Makes the connection the client's one; the older one is closed. Silently nothing above the limit."""
        older = self.clients.get(connection.client_id)
        if older is None and len(self.clients) >= self.max_clients:
            _LOG.warning("%s is not bound: %d clients are connected", connection.client_id, self.max_clients)
            return
        self.clients[connection.client_id] = connection
        self._connected_at[connection.client_id] = _now()
        connection.is_bound = True
        if older is not None:
            older.close("the same client connected again", cancel_in_flight=True)
        _LOG.info("%s connected", connection.client_id)
        self.twins.sync_after_connect(connection)
        self.methods.clients_changed()

    def unbind(self, connection: Connection) -> None:
        self._open.discard(connection)
        # The late close of an old connection must not take the new one away.
        if self.clients.get(connection.client_id) is connection:
            del self.clients[connection.client_id]
            _LOG.info("%s disconnected", connection.client_id)
        connection.is_bound = False

    def close_client(self, client_id: str, reason: str) -> None:
        for connection in [c for c in self._open if c.client_id == client_id]:
            connection.close(reason)

    def subscribe(self, connection: Connection, granted: Subscriptions, done: Done) -> None:
        """`done` runs when the session is durable: the SUBACK comes after that."""
        self._write_session(lambda: self._sessions.subscribe(connection.client_id, granted), connection, done)
        self.methods.clients_changed()

    def unsubscribe(self, connection: Connection, filters: tuple[str, ...], done: Done) -> None:
        self._write_session(lambda: self._sessions.unsubscribe(connection.client_id, filters), connection, done)

    def _write_session(self, write: Callable[[], None], connection: Connection, done: Done) -> None:
        try:
            if not connection.clean_session:
                write()
                self.reach("session_saved")
        except StoreFailed as error:
            _LOG.error("session of %s: %s", connection.client_id, error)
            done(False)
        else:
            self._store.after_commit(done)

    # --- what clients publish ----------------------------------------------------------------------------------------

    def handle_publish(self, connection: Connection, packet: Publish, done: Done) -> bool:
        """`done(True)` when the packet may be acknowledged, which is no promise that it was accepted.

        Returns False for the one mistake that closes the connection, a malformed twin topic.
        """
        try:
            topic = parse_inbound(packet.topic)
        except MalformedTwinTopic:
            return False
        except UnknownTopic:
            self._drop("unknown_topic")
            self._store.after_commit(done)
            return True
        try:
            self._handle_topic(connection, topic, packet, done)
        except StoreFailed as error:
            _LOG.error("a message of %s could not be stored: %s", connection.client_id, error)
            done(False)
        return True

    def _handle_topic(self, connection: Connection, topic: InboundTopic, packet: Publish, done: Done) -> None:
        match topic:
            case TelemetryTopic():
                self._take_telemetry(topic, packet)
            case TwinGet():
                self._store.after_commit(lambda _: self._answer_get(connection, topic))
            case TwinPatch():
                self._take_report(connection, topic, packet.payload)
            case MethodResponse():
                self.methods.answered(connection.client_id, topic, packet.payload)
        # Behind everything above, so that an answer is written before the request's PUBACK.
        self._store.after_commit(done)

    def _answer_get(self, connection: Connection, request: TwinGet) -> None:
        if connection.is_bound:
            self.twins.answer_get(connection, request)

    def _take_report(self, connection: Connection, request: TwinPatch, payload: bytes) -> None:
        if not connection.is_bound:
            return
        status = self.twins.report(connection.client_id, payload)
        if status == 204:
            self.reach("twin_written")
            self._route(self._twin_change(connection, payload))
        self._store.after_commit(lambda is_safe: self._answer_patch(connection, request, status, is_safe))

    def _answer_patch(self, connection: Connection, request: TwinPatch, status: int, is_safe: bool) -> None:
        self.twins.answer_patch(connection, request, status if is_safe else 500)

    def _take_telemetry(self, topic: TelemetryTopic, packet: Publish) -> None:
        self.counters.received += 1
        self.reach("publish_received")
        try:
            app, system = split_properties(parse_bag(topic.bag))
        except BadPropertyBag as error:
            _LOG.warning("a message of %s/%s is dropped: %s", topic.device, topic.module, error)
            self._drop("bad_properties")
            return
        if packet.dup:
            app["mqtt-dup"] = "true"
        if packet.retain:
            app["mqtt-retain"] = "true"
        message = self._message(topic, app, system, packet.payload)
        if message_size(message) > MESSAGE_LIMIT_BYTES:
            self._drop("too_large")
            return
        self._route(message)

    def _message(
        self, topic: TelemetryTopic, app: dict[str, str | None], system: dict[str, str], body: bytes
    ) -> Message:
        system["connectionDeviceId"] = topic.device
        if topic.module:
            system["connectionModuleId"] = topic.module
        is_ours = topic.module and topic.device == self.device_id
        system["edgeHubOriginInterface"] = "internal" if is_ours else "downstream"
        return Message(_source(topic.module, system.get("outputName")), app, _stamped(system), body)

    def _twin_change(self, connection: Connection, patch: bytes) -> Message:
        """The notification's sender on the wire is who reported."""
        username = connection.username
        assert username is not None  # it is connected
        system = {"messageSchema": "twinChangeNotification", "connectionDeviceId": username.device}
        if username.module:
            system["connectionModuleId"] = username.module
        return Message("/twinChangeNotifications/", {}, _stamped(system), patch)

    def _route(self, message: Message) -> None:
        try:
            hops = self._router.hops(message)
        except Exception:  # whatever a condition stumbles over costs this message, as it does in edgeHub
            _LOG.exception("a route's condition failed")
            self._drop("condition_failed")
            return
        if not hops:
            self._drop("no_route")
            return
        now = time.time()
        targets = [
            Target(hop.endpoint, hop.priority, None if hop.ttl_secs is None else now + self.pace(hop.ttl_secs))
            for hop in hops
        ]
        self.queues.put(message, targets)
        self.reach("message_queued")
        for target in targets:
            self._pumps[target.endpoint][0].wake()

    def _drop(self, reason: str) -> None:
        self.counters.dropped[reason] += 1

    # --- configuration -----------------------------------------------------------------------------------------------

    def configure(self, desired: Mapping[str, Any]) -> None:
        """Takes the `$edgeHub` desired properties, or raises ConfigError or RouteCompileError and keeps the old ones.

        A type error in a WHERE clause surfaces only when routes are applied: the reported status is 200 by then.
        """
        self.twins.replace_desired(f"{self.device_id}/{EDGE_HUB}", desired)
        try:
            config = parse_hub_config(desired)
        except ConfigError as error:
            self._report_status(400, f"Error while parsing desired properties: {error}")
            raise
        self._report_status(200, "")
        router = Router(config)
        self._store.set_meta(_CONFIG_KEY, msgspec.json.encode(desired).decode())
        self._apply(router)

    def _report_status(self, code: int, description: str) -> None:
        client_id = f"{self.device_id}/{EDGE_HUB}"
        version = self.twins.get(client_id).desired_version
        status = {"code": code, "description": description}
        patch = {"schemaVersion": "1.1", "version": {"version": "edgeweir"}, "lastDesiredVersion": version}
        self.twins.merge_reported(client_id, patch | {"lastDesiredStatus": status})

    def _apply(self, router: Router) -> None:
        for endpoint_id in self._router.endpoints.keys() - router.endpoints.keys():
            self._pumps.pop(endpoint_id)[1].cancel()
            # edgeHub deletes the default queue alone; what waits in others stays until it expires.
            dropped = self.queues.drop_queue(endpoint_id, DEFAULT_PRIORITY)
            if dropped:
                self.counters.dropped["route_removed"] += dropped
        self._router = router
        self._start_pumps()

    def _start_pumps(self) -> None:
        for endpoint_id, endpoint in self._router.endpoints.items():
            if endpoint_id in self._pumps:
                continue
            pump: Pump
            if endpoint is None:
                pump = UpstreamPump(self._upstream_file, self.queues, self.counters, self.pace)
            else:
                pump = InputPump(endpoint, self.device_id, self.find, self.queues, self.counters, self.pace, self.reach)
            self._pumps[endpoint_id] = (pump, asyncio.create_task(pump.run(), name=f"pump {endpoint_id}"))

    # --- background and statistics -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: token checks and the clean-up of expired messages."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_tokens(), name="token check")
            tasks.create_task(self._clean_up(), name="clean-up of expired messages")

    async def _check_tokens(self) -> None:
        while True:
            await asyncio.sleep(self.pace(TOKEN_CHECK_INTERVAL_SECS))
            for connection in list(self._open):
                self._check_token(connection)

    def identity_changed(self, client_id: str) -> None:
        """Keys or state are others now: edgeHub judges the token of the open connection again, at once."""
        for connection in [c for c in self._open if c.client_id == client_id]:
            self._check_token(connection)

    def _check_token(self, connection: Connection) -> None:
        username, token = connection.username, connection.token
        if username is None or token is None:
            return
        try:
            self._auth.check(username, token)
        except BadToken as error:
            connection.close(f"the token is no longer good: {error}")

    async def _clean_up(self) -> None:
        while True:
            await asyncio.sleep(self.pace(EXPIRED_CLEANUP_INTERVAL_SECS))
            with contextlib.suppress(StoreFailed):
                self.counters.dropped["ttl_expiry"] += self.queues.remove_expired(time.time())

    async def stop(self) -> None:
        """Ends the pumps; the connections are closed by then."""
        tasks = [task for _, task in self._pumps.values()]
        self._pumps.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stats(self) -> dict[str, Any]:
        """Queue lengths by endpoint and priority, connected clients, counters. Plain JSON."""
        queues: dict[str, dict[str, int]] = {}
        for (endpoint, priority), count in sorted(self.queues.lengths.items()):
            queues.setdefault(endpoint, {})[str(priority)] = count
        return {
            "queues": queues,
            "queued_total": sum(self.queues.lengths.values()),
            "clients": sorted(self.clients),
            "open_connections": len(self._open),
            "commits": self._store.commits,
            "routes_upstream": UPSTREAM in self._router.endpoints,
            **self.counters.as_json(),
        }

    def client_states(self) -> dict[str, dict[str, str]]:
        """Who is or was connected since the start, as `$edgeHub` reports it."""
        return {
            client: {
                "status": "Connected" if client in self.clients else "Disconnected",
                "lastConnectedTimeUtc": since,
            }
            for client, since in self._connected_at.items()
        }


def _source(module: str, output: str | None) -> str:
    if not module:
        return "/messages/"
    return f"/messages/modules/{module}/outputs/{output}/" if output else f"/messages/modules/{module}/"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamped(system: dict[str, str]) -> dict[str, str]:
    """What the hub adds to every message; it counts towards the size limit."""
    system["edgeMessageId"] = str(uuid.uuid4())
    system["enqueuedTime"] = _now()
    return system
