"""Fault proxies, live and from outside: toxiproxy's HTTP API (https://github.com/Shopify/toxiproxy, README "HTTP API").

Any toxiproxy client or CLI works: list, inspect, toggle, toxics added, updated and removed, reset. The proxies
themselves are whoever's made them, so creating and deleting one is refused. `down` is accepted as a toxic too.

Of our own: POST /proxies/{proxy}/lost_responses with {"method", "path", "nth", "then"}, and GET of the same with what
was lost so far.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from simulator.errors import UserError
from simulator.fault_proxy.documents import (
    BadDocument,
    InvalidStream,
    InvalidType,
    changed_toxic,
    read_loss,
    read_toxic,
    toxic_document,
)
from simulator.fault_proxy.http_watch import HttpWatch, Request
from simulator.fault_proxy.proxy import FaultProxy
from simulator.fault_proxy.toxics import Down, Toxic

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# The toxiproxy whose API this is.
VERSION: Final = "2.9.0"
_DISABLED: Final = Down()


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        if _is_of_a_page(request):
            raise Refused(403, "User agent not allowed")
        return await handler(request)
    except Refused as error:
        return _error(error.status, str(error))
    except InvalidType as error:
        return _error(400, f"invalid toxic type: {error}")
    except InvalidStream as error:
        return _error(400, f"stream was invalid, can be either upstream or downstream: {error}")
    except BadDocument as error:
        return _error(400, f"bad request body: {error}")
    except web.HTTPException as error:
        return _error(error.status, error.reason)


def _is_of_a_page(request: web.Request) -> bool:
    """A page in a browser must not be able to break things here.

    Some browsers let a page choose its User-Agent, where its own name leads to this machine; none lets it choose these.
    """
    of_browsers = ("Origin", "Sec-Fetch-Site")
    is_named = request.headers.get("User-Agent", "").startswith("Mozilla/")
    return is_named or any(name in request.headers for name in of_browsers)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text, "status": status}, status=status)


class FaultApi:
    """Over proxies by their names; the mapping may change while it runs."""

    def __init__(self, proxies: Mapping[str, FaultProxy]) -> None:
        self._proxies = proxies
        self.app = web.Application(middlewares=[_answer_errors])
        routes = self.app.router
        routes.add_get("/version", self._version)
        routes.add_post("/reset", self._reset)
        routes.add_get("/proxies", self._list)
        routes.add_post("/proxies", self._refuse_new)
        routes.add_post("/populate", self._refuse_new)
        one = "/proxies/{proxy}"
        routes.add_get(one, self._get)
        routes.add_post(one, self._update)
        routes.add_patch(one, self._update)
        routes.add_delete(one, self._refuse_new)
        routes.add_get(f"{one}/toxics", self._list_toxics)
        routes.add_post(f"{one}/toxics", self._add_toxic)
        routes.add_get(f"{one}/toxics/{{toxic}}", self._get_toxic)
        routes.add_post(f"{one}/toxics/{{toxic}}", self._update_toxic)
        routes.add_patch(f"{one}/toxics/{{toxic}}", self._update_toxic)
        routes.add_delete(f"{one}/toxics/{{toxic}}", self._remove_toxic)
        routes.add_get(f"{one}/lost_responses", self._list_lost)
        routes.add_post(f"{one}/lost_responses", self._lose)

    # --- proxies -----------------------------------------------------------------------------------------------------

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _reset(self, _: web.Request) -> web.Response:
        for proxy in self._proxies.values():
            proxy.reset()
        return web.Response(status=204)

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({name: proxy_document(name, proxy) for name, proxy in self._proxies.items()})

    async def _refuse_new(self, _: web.Request) -> web.Response:
        raise Refused(403, "the proxies here are fixed: none can be created or deleted")

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(proxy_document(*self._find(request)))

    async def _update(self, request: web.Request) -> web.Response:
        """`enabled` and `upstream` can change; where it listens cannot."""
        name, proxy = self._find(request)
        fields = await _object(request)
        if fields.get("listen") not in (None, "", _address(proxy.address)):
            raise Refused(403, "where a proxy listens is fixed")
        enabled = fields.get("enabled")
        if not isinstance(enabled, bool | None):
            raise BadDocument(f"enabled is {enabled!r}; it must be a boolean, true or false")
        if fields.get("upstream"):
            proxy.server_address = _read_address(fields["upstream"])
        match enabled:
            case False if not proxy.is_down:
                _add(proxy, _DISABLED)
            case True:
                for toxic in [toxic for toxic in proxy.toxics if isinstance(toxic, Down)]:
                    proxy.remove(toxic.name)
        return web.json_response(proxy_document(name, proxy))

    # --- toxics ------------------------------------------------------------------------------------------------------

    async def _list_toxics(self, request: web.Request) -> web.Response:
        return web.json_response([toxic_document(toxic) for toxic in self._find(request)[1].toxics])

    async def _add_toxic(self, request: web.Request) -> web.Response:
        _, proxy = self._find(request)
        toxic = read_toxic(await _object(request))
        _add(proxy, toxic)
        return web.json_response(toxic_document(toxic))

    async def _get_toxic(self, request: web.Request) -> web.Response:
        return web.json_response(toxic_document(self._find_toxic(request)[1]))

    async def _update_toxic(self, request: web.Request) -> web.Response:
        proxy, held = self._find_toxic(request)
        toxic = changed_toxic(held, await _object(request))
        proxy.replace(toxic)
        return web.json_response(toxic_document(toxic))

    async def _remove_toxic(self, request: web.Request) -> web.Response:
        proxy, toxic = self._find_toxic(request)
        proxy.remove(toxic.name)
        return web.Response(status=204)

    # --- lost responses ----------------------------------------------------------------------------------------------

    async def _list_lost(self, request: web.Request) -> web.Response:
        watch = self._watch(request)
        return web.json_response([_request_document(lost) for lost in watch.lost])

    async def _lose(self, request: web.Request) -> web.Response:
        watch = self._watch(request)
        watch.add_rule(read_loss(await _object(request)))
        return web.Response(status=204)

    def _watch(self, request: web.Request) -> HttpWatch:
        name, proxy = self._find(request)
        try:
            return proxy.http
        except ValueError:
            raise Refused(400, f"{name} does not carry plain HTTP: its responses cannot be told apart") from None

    def _find(self, request: web.Request) -> tuple[str, FaultProxy]:
        name = request.match_info["proxy"]
        if name not in self._proxies:
            raise Refused(404, "proxy not found")
        return name, self._proxies[name]

    def _find_toxic(self, request: web.Request) -> tuple[FaultProxy, Toxic]:
        proxy = self._find(request)[1]
        for toxic in proxy.toxics:
            if toxic.name == request.match_info["toxic"]:
                return proxy, toxic
        raise Refused(404, "toxic not found")


def proxy_document(name: str, proxy: FaultProxy) -> dict[str, Any]:
    return {
        "name": name,
        "listen": _address(proxy.address),
        "upstream": _address(proxy.server_address),
        "enabled": not proxy.is_down,
        "toxics": [toxic_document(toxic) for toxic in proxy.toxics],
    }


@contextlib.asynccontextmanager
async def serve_faults(proxies: Mapping[str, FaultProxy], *, port: int = 0) -> AsyncIterator[str]:
    """The API's URL, on loopback. Raises UserError when the port cannot be had."""
    runner = web.AppRunner(FaultApi(proxies).app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise UserError(f"the faults' API cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _add(proxy: FaultProxy, toxic: Toxic) -> None:
    try:
        proxy.add(toxic)
    except ValueError:
        raise Refused(409, f"toxic already exists: {toxic.name}") from None


def _address(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _read_address(text: object) -> tuple[str, int]:
    host, _, port = str(text).rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise BadDocument(f"{text!r} is no HOST:PORT")
    return host, int(port)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDocument(str(error)) from None
    if not isinstance(document, dict):
        raise BadDocument("it is no JSON object")
    return document


def _request_document(request: Request) -> dict[str, Any]:
    return {"connection": request.connection, "method": request.method, "path": request.path}
