"""Requests on record and responses lost, between real HTTP clients and servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientOSError, ClientSession, ClientTimeout, TCPConnector, web
from azure.core.exceptions import ResourceExistsError, ServiceResponseError
from azure.storage.blob import ContainerClient

from simulator.azurite import run_azurite
from simulator.fault_proxy import FaultProxy, LoseResponse, Request, run_fault_proxy
from simulator.project import find_root
from simulator.stored import API_VERSION
from tests.simulator.patience import until

ROOT = find_root(Path(__file__).parent)


class Server:
    """Keeps the bodies that reached it; answers with their length."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        return web.Response(text=str(len(body)))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with run_fault_proxy("127.0.0.1", server.port, http=True) as proxy:
        yield proxy


@pytest.fixture
async def session(proxy: FaultProxy) -> AsyncIterator[ClientSession]:
    # Each request has a connection of its own. They are POSTs: aiohttp repeats idempotent ones by itself.
    connector = TCPConnector(force_close=True)
    base = f"http://127.0.0.1:{proxy.port}"
    async with ClientSession(base, connector=connector, timeout=ClientTimeout(total=10)) as session:
        yield session


async def post(session: ClientSession, path: str, body: object) -> str:
    async with session.post(path, data=body) as response:
        return await response.text()


async def test_each_request_is_on_record_with_query_and_headers(
    session: ClientSession, proxy: FaultProxy, server: Server
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"GET /not-a-request HTTP/1.1\r\n\r\n"
        yield bytes(100_000)

    assert await post(session, "/a/b?comp=block&x=%20&empty=", chunks()) == "100031"
    async with session.get("/c", headers={"If-None-Match": "*"}) as response:
        assert response.status == 200
    first, second = proxy.requests
    assert (first.method, first.path) == ("POST", "/a/b")
    assert first.query_items == [("comp", "block"), ("x", " "), ("empty", "")]
    assert first.header("transfer-encoding") == "chunked"
    assert (second.method, second.path, second.query) == ("GET", "/c", "")
    assert second.header("if-none-match") == "*"
    assert second.header("nothing") is None
    assert (first.connection, second.connection) == (1, 2)


async def test_a_request_is_delivered_whole_and_its_response_lost_by_a_reset(
    session: ClientSession, proxy: FaultProxy, server: Server
) -> None:
    proxy.lose_response(LoseResponse(nth=2))
    body = bytes(900_000)
    assert await post(session, "/1", b"one") == "3"
    with pytest.raises(ClientOSError, match="reset by peer"):
        await post(session, "/2", body)
    assert await post(session, "/3", b"three") == "5"
    assert server.bodies == [b"one", body, b"three"]
    assert [request.path for request in proxy.http.lost] == ["/2"]


async def test_a_silent_loss_keeps_the_connection_open_and_says_nothing(
    session: ClientSession, proxy: FaultProxy, server: Server
) -> None:
    def is_post(request: Request) -> bool:
        return request.method == "POST"

    proxy.lose_response(LoseResponse(matches=is_post, then="silent"))
    waiting = asyncio.create_task(post(session, "/", b"body"))
    await until(lambda: proxy.http.lost)
    assert server.bodies == [b"body"]
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    assert proxy.open_connections == 1
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await until(lambda: proxy.open_connections == 0)
    assert await post(session, "/", b"again") == "5"


async def test_reset_forgets_the_rules(session: ClientSession, proxy: FaultProxy) -> None:
    proxy.lose_response(LoseResponse(nth=None))
    proxy.reset()
    assert await post(session, "/", b"x") == "1"


async def test_a_blob_whose_answer_was_lost_is_stored(tmp_path: Path) -> None:
    async with run_azurite(ROOT, tmp_path) as azurite, run_fault_proxy("127.0.0.1", azurite.port, http=True) as proxy:
        connection_string = azurite.account.connection_string(proxy.port)

        def upload() -> None:
            with ContainerClient.from_connection_string(
                connection_string, "rows", api_version=API_VERSION, retry_total=0
            ) as container:
                container.upload_blob("blob", b"rows", overwrite=False)

        def create() -> None:
            with ContainerClient.from_connection_string(
                connection_string, "rows", api_version=API_VERSION
            ) as container:
                container.create_container()

        await asyncio.to_thread(create)
        proxy.lose_response(LoseResponse(matches=lambda request: request.path.endswith("/rows/blob")))
        with pytest.raises(ServiceResponseError):
            await asyncio.to_thread(upload)
        with pytest.raises(ResourceExistsError):
            await asyncio.to_thread(upload)
        uploads = [request for request in proxy.requests if request.method == "PUT" and request.path.endswith("/blob")]
        assert [request.header("If-None-Match") for request in uploads] == ["*", "*"]
        assert len(proxy.http.lost) == 1


async def test_a_proxy_that_does_not_look_at_http_says_so(server: Server) -> None:
    async with run_fault_proxy("127.0.0.1", server.port) as proxy:
        with pytest.raises(ValueError, match="HTTP"):
            proxy.lose_response()
