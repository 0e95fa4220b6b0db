"""A module's workload API taken away: its socket refuses, never answers, or answers with 500.

Every call of a module opens a connection of its own, so another socket under the same path is all it takes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from simulator.local_site import LocalSite

WAYS: Final = ("refuses", "hangs", "answers 500")
_AWAY = ".away"
_ANSWER_500: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
    b'Content-Length: 23\r\nConnection: close\r\n\r\n{"message":"no key now"}'
)


@contextlib.asynccontextmanager
async def workload_away(site: LocalSite, module: str, way: str) -> AsyncIterator[None]:
    """`way` is one of WAYS."""
    environment = await site.control.module_environment(module)
    socket = unquote(urlsplit(environment["IOTEDGE_WORKLOADURI"]).path)
    hidden = await asyncio.to_thread(_hide, Path(socket))
    try:
        if way == "refuses":
            yield
            return
        async with _Stranger(answer=_ANSWER_500 if way == "answers 500" else b"").listening(socket):
            yield
    finally:
        await asyncio.to_thread(hidden.rename, socket)  # over whatever listens there


def _hide(socket: Path) -> Path:
    return socket.rename(socket.with_name(socket.name + _AWAY))


class _Stranger:
    """Whoever listens in the daemon's place: answers every request alike, or keeps the caller waiting."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self, socket: str) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, socket)
        try:
            yield
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._answer:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer)
                await writer.drain()
            else:
                await reader.read()  # as long as the caller is there
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
