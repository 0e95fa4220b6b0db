"""A TCP proxy that fails in chosen ways, in threads of its own so that a blocked test cannot stop it."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Literal

Mode = Literal["pass", "refuse", "hang", "lose_response"]

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """`lose_response` lets the request through and resets the connection when the first byte of the answer comes."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.mode: Mode = "pass"
        self.connections = 0
        self.lost = 0
        self.heads: list[str] = []
        """Request line and headers of everything that went through, in order of arrival."""
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def set_mode(self, mode: Mode) -> None:
        """Takes effect for open connections too: they are reset."""
        with self._lock:
            self.mode = mode
            open_now = list(self._sockets)
        for one in open_now:
            _reset(one)

    def close(self) -> None:
        self._listener.close()
        self.set_mode("refuse")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                mode = self.mode
                self._sockets.add(client)
            if mode == "refuse":
                _reset(client)
            elif mode != "hang":
                threading.Thread(target=self._serve, args=(client, mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: Mode) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self._upstream) as upstream:
            with self._lock:
                self._sockets.add(upstream)
            threading.Thread(target=self._pump_requests, args=(client, upstream), daemon=True).start()
            if mode == "lose_response":
                upstream.recv(1)
                self.lost += 1
                _reset(client)
            else:
                _pump(upstream, client)

    def _pump_requests(self, client: socket.socket, upstream: socket.socket) -> None:
        def note(piece: bytes) -> None:
            # The SDK sends a head by itself, before the body.
            if b" HTTP/1.1\r\n" in piece:
                self.heads.append(piece.partition(b"\r\n\r\n")[0].decode("latin-1"))

        _pump(client, upstream, note)


def _pump(source: socket.socket, target: socket.socket, note: Callable[[bytes], None] = lambda piece: None) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            note(piece)
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        one.close()


@contextlib.contextmanager
def run_proxy(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
