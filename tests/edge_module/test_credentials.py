"""Tokens and the workload API, over real sockets."""

import hmac
import json
import socket
import socketserver
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism

from edge_module.sas import key_signer, make_token
from edge_module.workload import Workload, WorkloadError

KEY = b"secret"


class _Handler(BaseHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self._answer(200, {"certificate": "PEM"})

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        data = b64decode(json.loads(self.rfile.read(size))["data"])
        digest = b64encode(hmac.digest(KEY, data, "sha256")).decode()
        if "broken" in self.path:
            self._answer(500, {"message": "key failure"})
        else:
            self._answer(200, {"digest": digest})

    def _answer(self, status: int, body: object) -> None:
        type(self).requests.append(self.path)
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def address_string(self) -> str:
        return "module"

    def log_message(self, format: str, *args: object) -> None:
        pass


class _UnixServer(socketserver.UnixStreamServer):
    server_name = "workload"
    server_port = 0


@pytest.fixture(params=["unix", "http"])
def workload_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    _Handler.requests = []
    server: socketserver.BaseServer
    if request.param == "unix":
        server = _UnixServer(str(tmp_path / "w.sock"), _Handler)
        uri = f"unix://{tmp_path / 'w.sock'}"
    else:
        http = HTTPServer(("127.0.0.1", 0), _Handler)
        server, uri = http, f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield uri
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_workload_api_signs_and_gives_the_trust_bundle(workload_uri: str) -> None:
    workload = Workload(workload_uri, module="$edge/x", generation="g1", api_version="2022-08-03")
    assert workload.trust_bundle() == "PEM"
    assert workload.sign(b"data") == hmac.digest(KEY, b"data", "sha256")
    assert _Handler.requests == [
        "/trust-bundle?api-version=2022-08-03",
        "/modules/%24edge%2Fx/genid/g1/sign?api-version=2022-08-03",
    ]


def test_an_error_of_the_workload_api_says_what_it_answered(workload_uri: str) -> None:
    workload = Workload(workload_uri, module="broken", generation="g", api_version="1")
    with pytest.raises(WorkloadError, match=r"answered 500: .*key failure"):
        workload.sign(b"data")


def test_a_workload_api_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    workload = Workload(f"unix://{tmp_path}/none.sock", module="m", generation="g", api_version="1")
    with pytest.raises(WorkloadError, match=r"none\.sock/trust-bundle: FileNotFoundError"):
        workload.trust_bundle()


def test_a_workload_api_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_module.workload._TIMEOUT_SECS", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "w.sock"))
        silent.listen()
        workload = Workload(f"unix://{tmp_path}/w.sock", module="m", generation="g", api_version="1")
        with pytest.raises(WorkloadError, match="TimeoutError"):
            workload.sign(b"data")


def test_a_token_is_built_exactly_as_the_device_sdk_builds_it() -> None:
    key = b64encode(b"0123456789abcdef").decode()
    resource = "hub.example/devices/d 1/modules/m+1"
    theirs: Any = RenewableSasToken(resource, SymmetricKeySigningMechanism(key), ttl=100)  # type: ignore[no-untyped-call]
    assert make_token(key_signer(key), resource, theirs.expiry_time) == str(theirs)
