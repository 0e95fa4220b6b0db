"""The TCP proxy itself: sockets and tasks around `Link` and `HttpConnection`, which decide.

A connection ends as a whole: when both directions have ended, when a toxic cuts it, or when either side resets it (the
other is then reset too). A half-close (FIN) is passed on as one.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from simulator.fault_proxy.clock import Clock, SystemClock
from simulator.fault_proxy.http_watch import HttpConnection, HttpWatch, LoseResponse, Request
from simulator.fault_proxy.link import Link
from simulator.fault_proxy.toxics import STREAMS, Cut, Down, End, Send, Timeout, Toxic

_PIECE_BYTES = 32 * 1024
# What one direction takes in ahead of what it gave out: beyond it, the sender's writes block, as on a slow line.
_AHEAD_BYTES = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """Listens on a loopback address and port and forwards to one server, as its toxics let it.

    Toxics may come and go while connections are open. All draws come from the seed, each connection's number (in order
    of arrival) and the toxic's name. With `http`, requests are put on record and responses can be lost.
    """

    def __init__(
        self,
        server_host: str,
        server_port: int,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        http: bool = False,
        max_requests: int = 10_000,
    ) -> None:
        self._server_address = (server_host, server_port)
        self._seed = seed
        self._clock = SystemClock() if clock is None else clock
        self._watch = HttpWatch(max_requests) if http else None
        self._toxics: dict[str, Toxic] = {}
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._holder: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._numbered = 0
        self._changes: Counter[str] = Counter()
        self.accepted = 0
        """Connections taken since the start."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens. Stays the same, and nobody else's, while the proxy is down."""
        assert self._holder is not None, "not started"
        host, port = self._holder.getsockname()
        return host, port

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def server_address(self) -> tuple[str, int]:
        """Where connections go; setting it is for those that are still to come."""
        return self._server_address

    @server_address.setter
    def server_address(self, address: tuple[str, int]) -> None:
        self._server_address = address

    @property
    def is_down(self) -> bool:
        return any(isinstance(toxic, Down) for toxic in self._toxics.values())

    @property
    def toxics(self) -> list[Toxic]:
        return list(self._toxics.values())

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def http(self) -> HttpWatch:
        """The record of what went through; only of a proxy made with `http=True`."""
        if self._watch is None:
            raise ValueError("this proxy does not look at HTTP")
        return self._watch

    @property
    def requests(self) -> list[Request]:
        return self.http.requests

    def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Must be called within a running event loop. Raises OSError; port 0 is any free one."""
        if port:
            _refuse_taken(host, port)
        # Bound but not listening: it keeps the port, and connections to it are refused unless the listener is there.
        self._holder = _bind(host, port)
        if not self.is_down:
            self._listen()

    async def stop(self) -> None:
        self._stop_listening()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def add(self, toxic: Toxic) -> None:
        """Applies to open connections too. A name can be there once: remove the old one first."""
        if toxic.name in self._toxics:
            raise ValueError(f"there is a toxic of this name already: {toxic.name}")
        self._toxics[toxic.name] = toxic
        self._changes[toxic.name] = len(self._connections) if isinstance(toxic, Down) else 0
        if isinstance(toxic, Down):
            self._stop_listening()
            for connection in self._connections:
                connection.cut(reset=False)
        for connection in self._connections:
            connection.add(toxic)

    def remove(self, name: str) -> None:
        """Bytes on their way go at once. Raises KeyError if there is no such toxic."""
        del self._toxics[name]
        for connection in self._connections:
            connection.remove(name)
        if self._holder is not None and not self.is_down:
            self._listen()

    def replace(self, toxic: Toxic) -> None:
        """As if the one of its name was removed and this one added. Raises KeyError if there is none."""
        self.remove(toxic.name)
        self.add(toxic)

    def silence(self) -> None:
        """What a firewall does that has forgotten: open connections carry nothing any more and stay open for ever.

        Those that come later are not concerned.
        """
        for connection in self._connections:
            for stream in STREAMS:
                connection.add(Timeout(timeout=0, stream=stream, name=f"silence_{stream}"))

    def changes(self, name: str) -> int:
        """How many events the toxic of this name, the last that there was, has changed or made; `down`: connections."""
        return self._changes[name]

    def _note_change(self, name: str) -> None:
        self._changes[name] += 1

    def reset(self) -> None:
        """Removes every toxic and every rule for lost responses, as toxiproxy's POST /reset."""
        for name in list(self._toxics):
            self.remove(name)
        if self._watch is not None:
            self._watch.clear_rules()

    def reseed(self, seed: int) -> None:
        """What is drawn from now on depends on this seed, and no longer on how many connections there have been.

        Those that are open are numbered from 1 again; toxics that they have already keep what they drew.
        """
        self._seed = seed
        for number, connection in enumerate(self._connections, 1):
            connection.reseed(seed, number)
        self._numbered = len(self._connections)

    def lose_response(self, rule: LoseResponse | None = None) -> None:
        """By default: of the next request, with a reset."""
        self.http.add_rule(LoseResponse() if rule is None else rule)

    def _listen(self) -> None:
        if self._listener is None:
            assert self._holder is not None
            self._listener = _bind(*self._holder.getsockname())
            self._listener.listen(128)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it went away between the call and us
        client.setblocking(False)
        self.accepted += 1
        self._numbered += 1
        watched = None if self._watch is None else HttpConnection(self._watch, self.accepted)
        upstream, downstream = (Link(self._seed, self._numbered, stream, self._note_change) for stream in STREAMS)
        connection = _Connection(client, self._clock, upstream, downstream, watched)
        for toxic in self._toxics.values():
            connection.add(toxic)
        task = asyncio.create_task(connection.run(self._server_address), name=f"fault proxy {self.accepted}")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._forget(connection, client))

    def _forget(self, connection: "_Connection", client: socket.socket) -> None:
        del self._connections[connection]
        client.close()  # a task that was cancelled before its first step has not


class _Ended(Exception):
    """The connection is over as a whole."""

    def __init__(self, reset: bool) -> None:
        self.reset = reset


class _Connection:
    def __init__(
        self, client: socket.socket, clock: Clock, upstream: Link, downstream: Link, http: HttpConnection | None
    ) -> None:
        self._client = client
        self._clock = clock
        self._upstream = upstream
        self._downstream = downstream
        self._http = http
        self._changed = {upstream: asyncio.Event(), downstream: asyncio.Event()}
        self._has_room = {upstream: asyncio.Event(), downstream: asyncio.Event()}
        self._client_has_ended = False
        self._cut: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def add(self, toxic: Toxic) -> None:
        for link, changed in self._changed.items():
            link.add(toxic, self._clock.now())
            changed.set()

    def remove(self, name: str) -> None:
        for link, changed in self._changed.items():
            link.remove(name, self._clock.now())
            changed.set()

    def reseed(self, seed: int, number: int) -> None:
        for link in self._changed:
            link.reseed(seed, number)

    def cut(self, reset: bool) -> None:
        if not self._cut.done():
            self._cut.set_result(reset)

    async def run(self, server_address: tuple[str, int]) -> None:
        writers: list[asyncio.StreamWriter] = []
        try:
            await self._run(server_address, writers)
            await _close(writers)
        finally:
            for each in writers:
                each.transport.abort()
            if self._http is not None:
                self._http.close()

    async def _run(self, server_address: tuple[str, int], writers: list[asyncio.StreamWriter]) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=self._client)
            writers.append(writer)
            server_reader, server_writer = await asyncio.open_connection(*server_address)
            writers.append(server_writer)
            await self._serve(reader, writer, server_reader, server_writer)
        except* _Ended as ended:
            # The server of a lost response gets a plain close: a reset could take the end of the request from it.
            if any(each.reset for each in _leaves(ended)):
                _set_reset(writers[:1] if self._is_response_lost() else writers)
                writers[0].transport.abort()
        except* OSError:
            # One side reset the connection, or the server is away: the other learns it the same way.
            _set_reset(writers)
            for each in writers:
                each.transport.abort()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch_cut())
            both = (
                group.create_task(self._take_in(reader, self._upstream)),
                group.create_task(self._take_in(server_reader, self._downstream)),
                group.create_task(self._give_out(self._upstream, server_writer)),
                group.create_task(self._give_out(self._downstream, writer)),
            )
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            watcher.cancel()

    async def _watch_cut(self) -> None:
        raise _Ended(await self._cut)

    def _is_response_lost(self) -> bool:
        return self._http is not None and self._http.is_losing

    async def _take_in(self, reader: asyncio.StreamReader, link: Link) -> None:
        while data := await reader.read(_PIECE_BYTES):
            link.take(self._clock.now(), self._look_at(data, link))
            self._changed[link].set()
            self._end_if_lost()
            while link.queued_bytes > _AHEAD_BYTES:
                self._has_room[link].clear()
                await self._has_room[link].wait()
        if link is self._upstream:
            self._client_has_ended = True
        elif self._http is not None:
            if self._http.is_losing:
                self._end_if_nobody_listens()
                return  # the silence covers the end of the response too
            link.take(self._clock.now(), self._http.end_from_server())
        link.end(self._clock.now())
        self._changed[link].set()

    def _look_at(self, data: bytes, link: Link) -> bytes:
        if self._http is None:
            return data
        if link is self._downstream:
            return self._http.pass_from_server(data)
        self._http.note_from_client(data)
        return data

    async def _give_out(self, link: Link, writer: asyncio.StreamWriter) -> None:
        while True:
            match await self._next_event(link):
                case Send(_, data):
                    writer.write(data)
                    await writer.drain()
                    self._has_room[link].set()
                    self._end_if_lost()
                case End():
                    if writer.can_write_eof():
                        writer.write_eof()
                    self._end_if_nobody_listens()
                    return
                case Cut(_, reset):
                    raise _Ended(reset)

    async def _next_event(self, link: Link) -> Send | End | Cut:
        changed = self._changed[link]
        while (event := link.give(self._clock.now())) is None:
            changed.clear()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(changed.wait())]
            if link.next_at is not None:
                waits.append(asyncio.ensure_future(self._clock.sleep(link.next_at - self._clock.now())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return event

    def _end_if_nobody_listens(self) -> None:
        """A client that has closed does not wait for a response that never comes."""
        if self._client_has_ended and self._is_response_lost():
            raise _Ended(reset=False)

    def _end_if_lost(self) -> None:
        """Only once nothing of the request is left with us."""
        if self._http is not None and self._http.due_loss == "reset" and not self._upstream.queued_bytes:
            raise _Ended(reset=True)


def _leaves(group: BaseExceptionGroup[_Ended]) -> list[_Ended]:
    leaves: list[_Ended] = []
    for each in group.exceptions:
        leaves.extend(_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    return leaves


def _set_reset(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        # Closing then discards what is unsent and sends RST.
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def _close(writers: list[asyncio.StreamWriter]) -> None:
    """Lets go what is written already."""
    for writer in writers:
        writer.close()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _bind(host: str, port: int) -> socket.socket:
    """Several of our sockets can have the port; of those, connections go only to one that listens."""
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _refuse_taken(host: str, port: int) -> None:
    """Raises OSError when somebody listens there: another proxy of ours would share the port without a word."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))


@contextlib.asynccontextmanager
async def run_fault_proxy(
    server_host: str,
    server_port: int,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    clock: Clock | None = None,
    http: bool = False,
    max_requests: int = 10_000,
) -> AsyncIterator[FaultProxy]:
    """Raises OSError when `host` and `port`, where it is to listen, cannot be had."""
    proxy = FaultProxy(server_host, server_port, seed=seed, clock=clock, http=http, max_requests=max_requests)
    proxy.start(host, port)
    try:
        yield proxy
    finally:
        await proxy.stop()
