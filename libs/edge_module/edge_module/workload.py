"""The workload API of the security daemon: trust bundle and signatures, over a Unix socket or http.

Every call has a deadline. A call opens a connection of its own: the daemon serves at most ten at a time.
"""

import http.client
import socket
from base64 import b64decode, b64encode
from urllib.parse import quote, unquote, urlsplit

import msgspec

_TIMEOUT_SECS = 10.0


class WorkloadError(Exception):
    """The workload API did not do what was asked; trying again may help."""


class _TrustBundle(msgspec.Struct):
    certificate: str


class _Digest(msgspec.Struct):
    digest: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECS)
        self.sock.connect(self._path)


class Workload:
    """Blocking; call it from an executor."""

    def __init__(self, uri: str, *, module: str, generation: str, api_version: str) -> None:
        self._uri = urlsplit(uri)
        if self._uri.scheme not in ("unix", "http"):
            raise ValueError(f"IOTEDGE_WORKLOADURI is {uri!r}; expected unix:///path or http://host:port")
        self._sign_path = f"/modules/{quote(module, safe='')}/genid/{quote(generation, safe='')}/sign"
        self._version = f"?api-version={api_version}"

    def trust_bundle(self) -> str:
        """PEM certificates that a server's chain must end in. Raises WorkloadError."""
        answer = self._request("GET", "/trust-bundle", None)
        try:
            return msgspec.json.decode(answer, type=_TrustBundle).certificate
        except msgspec.DecodeError as error:
            raise WorkloadError(f"trust bundle: {error}") from None

    def sign(self, data: bytes) -> bytes:
        """HMAC-SHA256 under the module identity's own key. Raises WorkloadError."""
        body = msgspec.json.encode({"keyId": "primary", "algo": "HMACSHA256", "data": b64encode(data).decode()})
        answer = self._request("POST", self._sign_path, body)
        try:
            return b64decode(msgspec.json.decode(answer, type=_Digest).digest, validate=True)
        except (msgspec.DecodeError, ValueError) as error:
            raise WorkloadError(f"sign: {error}") from None

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = self._connect()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, self._base_path() + path + self._version, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise WorkloadError(f"{self._uri.geturl()}{path}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise WorkloadError(f"{path} answered {response.status}: {answer[:200].decode(errors='replace')}")
        return answer

    def _base_path(self) -> str:
        return self._uri.path.rstrip("/") if self._uri.scheme == "http" else ""

    def _connect(self) -> http.client.HTTPConnection:
        if self._uri.scheme == "unix":
            return _UnixConnection(unquote(self._uri.path))
        return http.client.HTTPConnection(self._uri.hostname or "", self._uri.port or 80, timeout=_TIMEOUT_SECS)
