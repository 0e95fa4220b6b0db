"""The proxy between real sockets: each toxic is seen by a client, under a clock that the test moves."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.fault_proxy import (
    Add,
    Bandwidth,
    Down,
    FaultProxy,
    Latency,
    LimitData,
    Remove,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    run_fault_proxy,
    run_schedule,
)
from simulator.runtime import LocalEdge, RuntimeConfig
from simulator.runtime.codec import Connack
from tests.simulator.manual_clock import ManualClock
from tests.simulator.patience import until
from tests.simulator.runtime.raw_client import RawClient

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[], Awaitable[Client]]


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, int]]:
    """Gives back what it gets; closes when the other side has ended."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def proxy(server: tuple[str, int], clock: ManualClock) -> AsyncIterator[FaultProxy]:
    async with run_fault_proxy(*server, seed=1, clock=clock) as proxy:
        yield proxy


@pytest.fixture
async def connect(proxy: FaultProxy) -> AsyncIterator[Open]:
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def get(client: Client, size: int) -> bytes:
    return await asyncio.wait_for(client[0].readexactly(size), 10)


async def get_rest(client: Client) -> bytes:
    return await asyncio.wait_for(client[0].read(), 10)


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    """Nothing comes on its own: the clock stands still."""
    done, _ = await asyncio.wait([task], timeout=0.1)
    return not done


async def exchange(client: Client, data: bytes) -> bytes:
    client[1].write(data)
    return await get(client, len(data))


async def test_bytes_pass_both_ways_and_the_end_too(connect: Open, proxy: FaultProxy) -> None:
    client = await connect()
    data = bytes(range(256)) * 4000
    assert await exchange(client, data) == data
    client[1].write_eof()
    assert await get_rest(client) == b""
    await until(lambda: proxy.open_connections == 0)


async def test_latency_holds_an_answer_until_its_time(connect: Open, proxy: FaultProxy, clock: ManualClock) -> None:
    proxy.add(Latency(latency=2000))
    client = await connect()
    answer = asyncio.create_task(exchange(client, b"x"))
    await until(lambda: clock.waits == [2.0])
    clock.advance(1.9)
    assert await is_waiting(answer)
    clock.advance(0.1)
    assert await answer == b"x"


async def test_bandwidth_lets_through_what_the_time_allows(
    connect: Open, proxy: FaultProxy, clock: ManualClock
) -> None:
    proxy.add(Bandwidth(rate=1, stream="upstream"))
    client = await connect()
    client[1].write(bytes(1000))
    for _ in range(9):
        await until(lambda: clock.waits)
        clock.advance(0.1)
        await get(client, 100)
    await until(lambda: clock.waits == [pytest.approx(1.0)])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client[0].read(1), 0.05)


async def test_slow_close_keeps_the_end_back(connect: Open, proxy: FaultProxy, clock: ManualClock) -> None:
    proxy.add(SlowClose(delay=5000))
    client = await connect()
    assert await exchange(client, b"x") == b"x"
    client[1].write_eof()
    end = asyncio.create_task(get_rest(client))
    await until(lambda: clock.waits == [5.0])
    assert not end.done()
    clock.advance(5)
    assert await end == b""


async def test_a_timeout_gives_no_data_and_closes(connect: Open, proxy: FaultProxy, clock: ManualClock) -> None:
    client = await connect()
    assert await exchange(client, b"x") == b"x"
    proxy.add(Timeout(timeout=3000))
    answer = asyncio.create_task(get_rest(client))
    client[1].write(b"y")
    await until(lambda: clock.waits == [3.0])
    assert not answer.done()
    clock.advance(3)
    assert await answer == b""


async def test_removing_a_timeout_closes_what_lost_data(connect: Open, proxy: FaultProxy) -> None:
    client = await connect()
    proxy.add(Timeout(timeout=0))
    client[1].write(b"y")
    await until(lambda: proxy.open_connections)
    proxy.remove("timeout_downstream")
    assert await get_rest(client) == b""
    assert await exchange(await connect(), b"x") == b"x"


async def test_reset_peer_is_a_reset_and_no_end(connect: Open, proxy: FaultProxy) -> None:
    proxy.add(ResetPeer())
    client = await connect()
    client[1].write(b"x")
    with pytest.raises(ConnectionResetError):
        await get_rest(client)


async def test_the_slicer_gives_a_stream_in_pieces(connect: Open, proxy: FaultProxy, clock: ManualClock) -> None:
    proxy.add(Slicer(average_size=10, delay=1_000_000))
    client = await connect()
    client[1].write(bytes(range(20)))
    assert await asyncio.wait_for(client[0].read(100), 10) == bytes(range(10))
    await until(lambda: clock.waits == [1.0])
    clock.advance(1)
    assert await asyncio.wait_for(client[0].read(100), 10) == bytes(range(10, 20))


async def test_limit_data_closes_after_so_many_bytes(connect: Open, proxy: FaultProxy) -> None:
    proxy.add(LimitData(bytes=5))
    client = await connect()
    client[1].write(b"0123456789")
    assert await get_rest(client) == b"01234"


async def test_down_closes_what_is_open_and_refuses_what_comes(connect: Open, proxy: FaultProxy) -> None:
    old = await connect()
    assert await exchange(old, b"x") == b"x"
    port = proxy.port
    proxy.add(Down())
    with contextlib.suppress(ConnectionResetError):
        assert await get_rest(old) == b""
    with pytest.raises(ConnectionRefusedError):
        await connect()
    proxy.remove("down")
    assert proxy.port == port
    assert await exchange(await connect(), b"y") == b"y"


async def test_after_a_reseed_connections_draw_as_those_of_a_new_proxy(connect: Open, proxy: FaultProxy) -> None:
    toxic = Timeout(timeout=1, stream="upstream", toxicity=0.5)

    async def spared() -> list[bool]:
        before = proxy.open_connections
        proxy.add(toxic)
        clients = [await connect() for _ in range(6)]
        await until(lambda: proxy.open_connections == before + 6)
        proxy.remove(toxic.name)
        echoes = [await _is_open(client) for client in clients]
        for _, writer in clients:
            writer.close()
        await until(lambda: proxy.open_connections == 0)
        return echoes

    proxy.reseed(5)
    first = await spared()
    assert await spared() != first, "the count goes on"
    proxy.reseed(5)
    assert await spared() == first


async def _is_open(client: Client) -> bool:
    """Whether it gives back what it gets."""
    reader, writer = client
    try:
        writer.write(b"x")
        return await reader.read(1) == b"x"
    except OSError:
        return False


async def test_toxicity_spares_the_connections_that_the_seed_spares(connect: Open, proxy: FaultProxy) -> None:
    proxy.add(LimitData(bytes=0, toxicity=0.5))
    ends = []
    for _ in range(20):
        client = await connect()
        client[1].write(b"x")
        client[1].write_eof()
        ends.append(await get_rest(client))
    assert set(ends) == {b"", b"x"}


async def test_reset_removes_every_toxic_from_open_connections(connect: Open, proxy: FaultProxy) -> None:
    client = await connect()
    proxy.add(Latency(latency=1e9))
    proxy.add(Latency(latency=1e9, stream="upstream"))
    answer = asyncio.create_task(exchange(client, b"held"))
    assert await is_waiting(answer)
    proxy.reset()
    assert await answer == b"held"
    assert proxy.toxics == []


async def test_a_name_is_taken_once(proxy: FaultProxy) -> None:
    proxy.add(Latency(latency=1))
    with pytest.raises(ValueError, match="latency_downstream"):
        proxy.add(Latency(latency=2))
    with pytest.raises(KeyError):
        proxy.remove("nothing")


async def test_a_sender_is_held_up_when_its_bytes_do_not_leave(connect: Open, proxy: FaultProxy) -> None:
    proxy.add(Latency(latency=1e9, stream="upstream"))
    client = await connect()
    data = bytes(20_000_000)
    client[1].write(data)
    drained = asyncio.create_task(client[1].drain())
    answer = asyncio.create_task(get(client, len(data)))
    assert await is_waiting(drained)
    proxy.reset()
    assert await answer == data
    await drained


async def test_a_schedule_adds_and_removes_at_its_times(proxy: FaultProxy, clock: ManualClock) -> None:
    steps: list[Add | Remove] = [Remove(3, "down"), Add(1, Latency(latency=1)), Add(2, Down())]
    running = asyncio.create_task(run_schedule(proxy, steps, clock))
    names = []
    for _ in range(3):
        await until(lambda: clock.waits)
        clock.advance(1)
        before = [toxic.name for toxic in proxy.toxics]
        await until(lambda before=before: [toxic.name for toxic in proxy.toxics] != before)  # type: ignore[misc]
        names.append([toxic.name for toxic in proxy.toxics])
    await running
    assert names == [["latency_downstream"], ["latency_downstream", "down"], ["latency_downstream"]]


async def test_a_server_that_is_away_is_a_reset(clock: ManualClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    async with run_fault_proxy("127.0.0.1", port, clock=clock) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_stopping_ends_connections_whose_bytes_are_held(connect: Open, proxy: FaultProxy) -> None:
    proxy.add(Latency(latency=1e9))
    client = await connect()
    client[1].write(b"x")
    await until(lambda: proxy.open_connections)
    port = proxy.port
    await asyncio.wait_for(proxy.stop(), 10)
    with contextlib.suppress(ConnectionResetError):
        assert await get_rest(client) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_mqtt_over_tls_survives_latency_and_slices(tmp_path: Path) -> None:
    async with LocalEdge(RuntimeConfig(state_dir=tmp_path / "state", time_scale=20)) as edge:
        await edge.add_device("leaf")
        clock = ManualClock()
        async with run_fault_proxy(edge.gateway_host, edge.config.port, clock=clock) as proxy:
            proxy.add(Slicer(average_size=50, size_variation=20, stream="upstream"))
            proxy.add(Latency(latency=100, jitter=20))
            client = ProxiedClient(edge, proxy.port)
            answer = asyncio.create_task(client.connect())
            rounds = 0
            while not answer.done():
                if clock.waits:
                    clock.advance(clock.waits[0] - clock.now())
                    rounds += 1
                await asyncio.sleep(0.001)
            assert await answer == Connack(0, False)
            # The server's part of the TLS handshake, and its CONNACK, came each in its delayed time.
            assert rounds >= 2
            assert clock.now() >= 2 * 0.080
            client.writer.transport.abort()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()


class ProxiedClient(RawClient):
    """Knows the hub by its name and comes by another port."""

    def __init__(self, edge: LocalEdge, port: int) -> None:
        super().__init__(edge, "leaf")
        self._port = port

    async def open(self) -> "ProxiedClient":
        context = ssl.create_default_context(cafile=str(self.edge.ca_file))
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=context, server_hostname=self.edge.gateway_host
        )
        return self
