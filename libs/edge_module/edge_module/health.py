"""Why a module is not well: reason codes with a detail, set and cleared by whoever notices.

A code stays until the same noticer clears it. `ok` means that no code is set.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_AGAIN_SECS = 0.1


class Health:
    """Thread-safe. `changed` is called (on the setter's thread) when the set of reasons changes."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()
        self._changed = changed

    def set(self, code: str, detail: str = "") -> None:
        with self._lock:
            if self._reasons.get(code) == detail:
                return
            self._reasons[code] = detail
        self._changed()

    def clear(self, code: str) -> None:
        with self._lock:
            if self._reasons.pop(code, None) is None:
                return
        self._changed()

    def reasons(self) -> dict[str, str]:
        with self._lock:
            return dict(self._reasons)


class HealthServer:
    """`/metrics` and `/healthz` on a thread of its own.

    `/healthz` answers 200 while the module makes progress, with the reasons in its body, and 503 when it does not. A
    reason alone is no 503: edgeAgent restarts what is unhealthy, which mends neither a full disk nor a silent hub.
    """

    def __init__(
        self, host: str, port: int, *, exposition: Callable[[], bytes], vitals: Callable[[], dict[str, object]]
    ) -> None:
        self._server = _make_server(host, port, exposition, vitals)
        self.port: int = self._server.server_address[1]
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._is_closing = True
        self._server.shutdown()
        self._server.server_close()

    def _serve(self) -> None:
        # A machine short of memory lets even waiting fail. Whoever asks how the module is must still hear it later.
        while not self._is_closing:
            try:
                self._server.serve_forever(0.1)
            except OSError:
                time.sleep(_AGAIN_SECS)


def _make_server(
    host: str, port: int, exposition: Callable[[], bytes], vitals: Callable[[], dict[str, object]]
) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
            elif self.path == "/healthz":
                found = vitals()
                status = 200 if found["is_alive"] else 503
                self._answer(status, "application/json", json.dumps(found).encode())
            else:
                self._answer(404, "text/plain", b"only /metrics and /healthz are here\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    return server
