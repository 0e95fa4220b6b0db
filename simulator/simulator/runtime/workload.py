"""The workload API as edged serves it to one module: trust bundle, sign, server certificate, module list.

Each module has a socket of its own, as since IoT Edge 1.2.4; asking for another module's key there is refused, which
is what the real check of the caller's process comes to.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from simulator.runtime.identities import Identity, Registry
from simulator.runtime.pki import Pki
from simulator.runtime.sas import sign

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
API_VERSION = "2022-08-03"
API_VERSIONS = frozenset(
    ("2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", API_VERSION)
)
_REQUEST_LIMIT_BYTES = 1024 * 1024


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    version = request.query.get("api-version")
    try:
        if version not in API_VERSIONS:
            raise _Refused(400, f"api-version {version!r} is not supported")
        return await handler(request)
    except _Refused as error:
        return web.json_response({"message": str(error)}, status=error.status)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason}, status=error.status)


class Workload:
    """The sockets of all modules. `start` one as soon as its module exists; `stop` closes them all."""

    def __init__(self, registry: Registry, pki: Pki, device_id: str, gateway_host: str, folder: Path) -> None:
        self._registry = registry
        self._pki = pki
        self._device_id = device_id
        self._gateway_host = gateway_host
        self._folder = folder
        self._runners: dict[str, web.AppRunner] = {}

    def socket_of(self, module_id: str) -> Path:
        return self._folder / f"{module_id.replace('/', '_')}.sock"

    def uri_of(self, module_id: str) -> str:
        return f"unix://{self.socket_of(module_id)}"

    async def start(self, module_id: str) -> None:
        """Serves the module's socket; nothing when it is served already."""
        if module_id in self._runners:
            return
        runner = web.AppRunner(self._app(module_id), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners[module_id] = runner
        file = self.socket_of(module_id)
        file.unlink(missing_ok=True)  # left behind by a runtime that was killed
        await web.UnixSite(runner, str(file)).start()

    async def stop(self, module_id: str | None = None) -> None:
        for name in list(self._runners) if module_id is None else [module_id]:
            runner = self._runners.pop(name, None)
            if runner is not None:
                await runner.cleanup()

    def _app(self, module_id: str) -> web.Application:
        endpoint = _ModuleEndpoint(module_id, self._registry, self._pki, self._device_id, self._gateway_host)
        app = web.Application(middlewares=[_answer_errors], client_max_size=_REQUEST_LIMIT_BYTES)
        app.router.add_get("/trust-bundle", endpoint.trust_bundle)
        app.router.add_get("/manifest-trust-bundle", endpoint.manifest_trust_bundle)
        app.router.add_get("/modules", endpoint.modules)
        app.router.add_post("/modules/{module}/genid/{generation}/sign", endpoint.sign)
        app.router.add_post("/modules/{module}/genid/{generation}/certificate/server", endpoint.server_certificate)
        return app


class _ModuleEndpoint:
    """What one module's socket answers."""

    def __init__(self, module_id: str, registry: Registry, pki: Pki, device_id: str, gateway_host: str) -> None:
        self._module_id = module_id
        self._registry = registry
        self._pki = pki
        self._device_id = device_id
        self._gateway_host = gateway_host

    async def trust_bundle(self, _: web.Request) -> web.Response:
        return web.json_response({"certificate": self._pki.trust_bundle})

    async def manifest_trust_bundle(self, _: web.Request) -> web.Response:
        raise _Refused(404, "not found")  # manifests are not signed here

    async def modules(self, _: web.Request) -> web.Response:
        names = [identity.module for identity in self._registry.modules_of(self._device_id)]
        modules = [
            {
                "id": name,
                "name": name,
                "type": "docker",
                "config": {"settings": {}, "env": []},
                "status": {"runtimeStatus": {"status": "running"}},
            }
            for name in names
        ]
        return web.json_response({"modules": modules})

    async def sign(self, request: web.Request) -> web.Response:
        """HMAC-SHA256 with the module's own key. Whatever the content type says, the body is JSON."""
        identity = self._caller(request)
        data = await _field(request, "data")
        try:
            text = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _Refused(400, "data is not base64 of text") from None
        digest = sign(identity.keys[0], text)
        return web.json_response({"digest": base64.b64encode(digest).decode()})

    async def server_certificate(self, request: web.Request) -> web.Response:
        self._caller(request)
        common_name = await _field(request, "commonName")
        alias = self._module_id.removeprefix("$").lower()
        key, chain, expires = self._pki.issue_server_certificate(common_name, (self._gateway_host, alias))
        body = {
            "privateKey": {"type": "key", "bytes": key.decode()},
            "certificate": chain.decode(),
            "expiration": expires.isoformat().replace("+00:00", "Z"),
        }
        return web.json_response(body, status=201)

    def _caller(self, request: web.Request) -> Identity:
        module_id = request.match_info["module"]
        if module_id != self._module_id:
            raise _Refused(403, f"this socket belongs to module {self._module_id}, not to {module_id}")
        identity = self._registry.get(self._device_id, module_id)
        if identity is None:
            raise _Refused(404, f"module {module_id} does not exist")
        return identity


async def _field(request: web.Request, name: str) -> str:
    try:
        body = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Refused(400, "the body is not JSON") from None
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str):
        raise _Refused(400, f"field {name} is missing")
    return value
