import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulator.proxy import Proxy, Traffic, run_proxy


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[Proxy], Awaitable[Client]]


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()


@pytest.fixture
async def proxy(server: tuple[str, int]) -> AsyncIterator[Proxy]:
    async with run_proxy(*server) as proxy:
        yield proxy


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    writers: list[asyncio.StreamWriter] = []

    async def connect(proxy: Proxy) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(client: Client, data: bytes) -> bytes:
    reader, writer = client
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 10)


async def is_cut(client: Client) -> bool:
    try:
        await exchange(client, b"x")
        await exchange(client, b"x")
    except (OSError, asyncio.IncompleteReadError):
        return True
    return False


async def test_bytes_pass_both_ways_and_the_end_too(proxy: Proxy, connect: Connect) -> None:
    client = await connect(proxy)
    data = bytes(range(256)) * 2000
    assert await exchange(client, data) == data
    client[1].write_eof()
    assert await asyncio.wait_for(client[0].read(), 10) == b""


async def test_refusing_resets_what_is_open_and_closes_what_comes(proxy: Proxy, connect: Connect) -> None:
    old = await connect(proxy)
    assert await exchange(old, b"x") == b"x"
    proxy.set_traffic(Traffic.REFUSE)
    assert await is_cut(old)
    assert await is_cut(await connect(proxy))
    proxy.set_traffic(Traffic.PASS)
    assert await exchange(await connect(proxy), b"y") == b"y"


async def test_hanging_moves_no_byte_and_loses_none(proxy: Proxy, connect: Connect) -> None:
    old = await connect(proxy)
    assert await exchange(old, b"x") == b"x"
    proxy.set_traffic(Traffic.HANG)
    new = await connect(proxy)
    waiting = [asyncio.create_task(exchange(client, b"held")) for client in (old, new)]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    proxy.set_traffic(Traffic.PASS)
    assert await asyncio.gather(*waiting) == [b"held", b"held"]


async def test_a_server_that_is_away_closes_the_connection(unused_port: int, connect: Connect) -> None:
    async with run_proxy("127.0.0.1", unused_port) as proxy:
        assert await is_cut(await connect(proxy))


async def test_stopping_ends_every_connection(server: tuple[str, int], connect: Connect) -> None:
    proxy = Proxy(*server)
    await proxy.start()
    client = await connect(proxy)
    assert await exchange(client, b"x") == b"x"
    port = proxy.port
    await proxy.stop()
    assert await is_cut(client)
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
