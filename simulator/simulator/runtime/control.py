"""The control API: the shapes of IoT Hub's service REST on a Unix socket, for fixtures, the CLI and the supervisor.

No authorisation: whoever may open the socket (mode 0600 in a 0700 folder) may do everything. Errors have the body
`{"Message": "ErrorCode:<name>;<text>", "ExceptionMessage": ""}` and the hub's status codes.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from simulator.runtime.config import RuntimeFailed
from simulator.runtime.hub import EDGE_HUB
from simulator.runtime.identities import Identity
from simulator.runtime.methods import MethodFailed
from simulator.runtime.routing.errors import RoutingError
from simulator.runtime.store import StoreFailed
from simulator.runtime.twins import JsonObject, Twin, for_client, merge, without_markers

if TYPE_CHECKING:
    from simulator.runtime.edge import LocalEdge

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REQUEST_LIMIT_BYTES = 4 * 1024 * 1024


class Refused(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except StoreFailed as error:
        return _error(500, "ServerError", str(error))
    except Refused as error:
        return _error(error.status, error.code, str(error))
    except (RoutingError, RuntimeFailed) as error:
        return _error(400, "ArgumentInvalid", str(error))
    except MethodFailed as error:
        return _error(error.status, "DeviceNotOnline" if error.status == 404 else "GatewayTimeout", str(error))
    except web.HTTPException as error:
        return _error(error.status, "Http", error.reason)


def _error(status: int, code: str, text: str) -> web.Response:
    return web.json_response({"Message": f"ErrorCode:{code};{text}", "ExceptionMessage": ""}, status=status)


class ControlServer:
    def __init__(self, edge: "LocalEdge", file: Path) -> None:
        self.file = file
        self._edge = edge
        app = web.Application(middlewares=[_answer_errors, self._make_durable], client_max_size=_REQUEST_LIMIT_BYTES)
        for prefix in ("/twins/{device}/modules/{module}", "/twins/{device}"):
            app.router.add_get(prefix, self._get_twin)
            app.router.add_patch(prefix, self._patch_twin)
            app.router.add_put(prefix, self._put_twin)
            app.router.add_post(f"{prefix}/methods", self._invoke)
        for prefix in ("/devices/{device}/modules/{module}", "/devices/{device}"):
            app.router.add_get(prefix, self._get_identity)
            app.router.add_put(prefix, self._put_identity)
            app.router.add_delete(prefix, self._delete_identity)
        app.router.add_get("/devices/{device}/modules", self._list_modules)
        app.router.add_post("/devices/{device}/applyConfigurationContent", self._apply)
        app.router.add_get("/edgeweir/stats", self._stats)
        app.router.add_get("/edgeweir/modules/{module}/environment", self._environment)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        await self._runner.setup()
        self.file.unlink(missing_ok=True)  # left behind by a runtime that was killed
        await web.UnixSite(self._runner, str(self.file)).start()
        self.file.chmod(0o600)

    async def stop(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _make_durable(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """What was changed is on disk before the caller hears of it, and stays changed when the edge's power goes."""
        answer = await handler(request)
        self._edge.flush()
        if request.method != "GET":
            self._edge.sync()
        return answer

    # --- twins and methods -------------------------------------------------------------------------------------------

    async def _get_twin(self, request: web.Request) -> web.Response:
        return web.json_response(self._twin_json(self._identity(request)))

    async def _patch_twin(self, request: web.Request) -> web.Response:
        """Merges `properties.desired` and `tags`; null deletes."""
        identity = self._identity(request)
        desired, tags = _twin_changes(await _json_object(request))
        if tags is not None:
            held = self._edge.hub.twins.get(identity.client_id).tags
            self._edge.hub.twins.set_tags(identity.client_id, _merged(held, tags))
        if desired is not None:
            if self._is_edge_hub(identity):
                self._edge.set_edge_hub_config(_merged(self._edge.hub.twins.get(identity.client_id).desired, desired))
            else:
                self._edge.hub.twins.patch_desired(identity.client_id, desired)
        return web.json_response(self._twin_json(identity))

    async def _put_twin(self, request: web.Request) -> web.Response:
        """Replaces `properties.desired` and `tags`."""
        identity = self._identity(request)
        desired, tags = _twin_changes(await _json_object(request))
        if tags is not None:
            self._edge.hub.twins.set_tags(identity.client_id, tags)
        if desired is not None:
            if self._is_edge_hub(identity):
                self._edge.set_edge_hub_config(desired)
            else:
                self._edge.hub.twins.replace_desired(identity.client_id, desired)
        return web.json_response(self._twin_json(identity))

    async def _invoke(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        body = await _json_object(request)
        name = body.get("methodName")
        if not isinstance(name, str) or not 1 <= len(name) <= 100:
            raise Refused(400, "ArgumentInvalid", "methodName is not a text of 1 to 100 characters")
        response_timeout_secs = _seconds(body, "responseTimeoutInSeconds", 30, 5, 300)
        connect_timeout_secs = _seconds(body, "connectTimeoutInSeconds", 0, 0, 300)
        status, payload = await self._edge.hub.methods.invoke(
            identity.client_id,
            name,
            msgspec.json.encode(body.get("payload")),
            response_timeout_secs=response_timeout_secs,
            connect_timeout_secs=connect_timeout_secs,
        )
        answer = msgspec.Raw(payload or b"null")
        return _json(msgspec.json.encode({"status": status, "payload": answer}))

    # --- identities --------------------------------------------------------------------------------------------------

    async def _get_identity(self, request: web.Request) -> web.Response:
        return web.json_response(self._identity_json(self._identity(request)))

    async def _put_identity(self, request: web.Request) -> web.Response:
        """Makes or changes it; keys of the caller's own and `status` are taken over."""
        device, module = _ids(request)
        body = await _json_object(request) if request.can_read_body else {}
        if module and self._edge.registry.get(device) is None:
            raise Refused(404, "DeviceNotFound", f"device {device} does not exist")
        keys = _part(_part(body, "authentication"), "symmetricKey")
        identity = self._edge.registry.ensure(
            device,
            module,
            primary_key=keys.get("primaryKey"),
            secondary_key=keys.get("secondaryKey"),
            enabled={"enabled": True, "disabled": False}.get(body.get("status", "")),
        )
        self._edge.hub.identity_changed(identity.client_id)
        if device == self._edge.config.device_id and module:
            await self._edge.add_module(module)
        return web.json_response(self._identity_json(identity))

    async def _delete_identity(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        await self._edge.remove_identity(identity.device, identity.module)
        return web.Response(status=204)

    async def _list_modules(self, request: web.Request) -> web.Response:
        device = request.match_info["device"]
        return web.json_response([self._identity_json(i) for i in self._edge.registry.modules_of(device)])

    async def _apply(self, request: web.Request) -> web.Response:
        if request.match_info["device"] != self._edge.config.device_id:
            raise Refused(404, "DeviceNotFound", "only the edge device itself takes a deployment")
        await self._edge.apply_manifest(await _json_object(request))
        return web.Response(status=204)

    # --- of our own --------------------------------------------------------------------------------------------------

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(self._edge.stats())

    async def _environment(self, request: web.Request) -> web.Response:
        """What a process of this module needs in its environment."""
        module = request.match_info["module"]
        if self._edge.registry.get(self._edge.config.device_id, module) is None:
            raise Refused(404, "ModuleNotFound", f"module {module} does not exist")
        return web.json_response(self._edge.module_environment(module))

    # --- shapes ------------------------------------------------------------------------------------------------------

    def _identity(self, request: web.Request) -> Identity:
        device, module = _ids(request)
        identity = self._edge.registry.get(device, module)
        if identity is None:
            what = f"module {module} of device {device}" if module else f"device {device}"
            raise Refused(404, "ModuleNotFound" if module else "DeviceNotFound", f"{what} does not exist")
        return identity

    def _is_edge_hub(self, identity: Identity) -> bool:
        return identity.module == EDGE_HUB and identity.device == self._edge.config.device_id

    def _twin_json(self, identity: Identity) -> dict[str, Any]:
        twin: Twin = self._edge.hub.twins.get(identity.client_id)
        properties = for_client(twin)
        if self._is_edge_hub(identity):
            properties["reported"] |= {"clients": self._edge.hub.client_states()}
        return {
            **self._common_json(identity),
            "etag": f"AAAA{twin.desired_version:08d}",
            "version": twin.desired_version + twin.reported_version,
            "tags": twin.tags,
            "properties": properties,
        }

    def _identity_json(self, identity: Identity) -> dict[str, Any]:
        keys = {"primaryKey": identity.primary_key, "secondaryKey": identity.secondary_key}
        return {
            **self._common_json(identity),
            "generationId": identity.generation,
            "etag": identity.generation,
            "authentication": {"type": "sas", "symmetricKey": keys},
        }

    def _common_json(self, identity: Identity) -> dict[str, Any]:
        is_connected = identity.client_id in self._edge.hub.clients
        common: dict[str, Any] = {
            "deviceId": identity.device,
            "status": "enabled" if identity.enabled else "disabled",
            "connectionState": "Connected" if is_connected else "Disconnected",
        }
        return common | ({"moduleId": identity.module, "managedBy": "IotEdge"} if identity.module else {})


def _ids(request: web.Request) -> tuple[str, str]:
    return request.match_info["device"], request.match_info.get("module", "")


def _twin_changes(body: JsonObject) -> tuple[JsonObject | None, JsonObject | None]:
    return _part(body, "properties").get("desired"), body.get("tags")


def _merged(document: JsonObject, patch: JsonObject) -> JsonObject:
    return merge(document, without_markers(patch))


async def _json_object(request: web.Request) -> JsonObject:
    try:
        body = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, "ArgumentInvalid", f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "ArgumentInvalid", "the body is not a JSON object")
    return body


def _part(body: JsonObject, key: str) -> JsonObject:
    """Absent: empty."""
    part = body.get(key, {})
    if not isinstance(part, dict):
        raise Refused(400, "ArgumentInvalid", f"{key} must be a JSON object")
    return part


def _seconds(body: JsonObject, key: str, default: int, low: int, high: int) -> float:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(400, "ArgumentInvalid", f"{key} is not between {low} and {high}")
    return float(value)


def _json(text: bytes) -> web.Response:
    return web.Response(body=text, content_type="application/json")
