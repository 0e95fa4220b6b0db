"""A TCP proxy whose traffic can be taken away: what an outage of the storage looks like to the uploader."""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator

_PIECE_BYTES = 64 * 1024


class Traffic(enum.Enum):
    PASS = "pass"
    """Bytes go through both ways."""
    REFUSE = "refuse"
    """Open connections are reset, new ones are closed at once."""
    HANG = "hang"
    """Connections stay open and new ones are taken, but not a byte moves, until it passes again."""


class Proxy:
    """Listens on a loopback port of its own and forwards to one server."""

    def __init__(self, server_host: str, server_port: int) -> None:
        self._server_address = (server_host, server_port)
        self._traffic = Traffic.PASS
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._listener is not None, "not started"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    async def start(self, host: str = "127.0.0.1") -> None:
        self._listener = await asyncio.start_server(self._accept, host, 0)

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set_traffic(self, traffic: Traffic) -> None:
        self._traffic = traffic
        if traffic is Traffic.HANG:
            self._passing.clear()
        else:
            self._passing.set()
        if traffic is Traffic.REFUSE:
            self._reset_all()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side going away ends this one connection, nothing else
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._traffic is Traffic.REFUSE:
            return
        await self._passing.wait()
        server_reader, server_writer = await asyncio.open_connection(*self._server_address)
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer))
                group.create_task(self._pump(server_reader, writer))
        except* OSError:
            pass
        finally:
            self._writers.discard(server_writer)
            server_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            await self._passing.wait()
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


@contextlib.asynccontextmanager
async def run_proxy(server_host: str, server_port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(server_host, server_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
