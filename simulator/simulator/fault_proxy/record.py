"""HTTP exchanges as lines of JSON for a file, with what is secret in them masked.

Masked are the values of headers whose names speak of authorization or cookies, and the signature of a shared access
signature (`sig`), in a query or anywhere in a header. Bodies are not recorded.
"""

import re
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from simulator.errors import UserError
from simulator.fault_proxy.http_watch import Exchange

_MASK: Final = "***"
_SECRET_HEADER: Final = re.compile(r"authorization|cookie|x-ms-encryption-key$", re.IGNORECASE)
# Also where a whole URL is a header's value or, encoded once more, a query's.
_SIGNATURE: Final = re.compile(r"(?<![a-z0-9_])(sig(?:=|%3d))[^&;\s\"]*", re.IGNORECASE)


def exchange_document(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    return {
        "connection": request.connection,
        "method": request.method,
        "path": _without_signature(request.path),
        "query": _without_signature(request.query),
        "headers": [[name, masked_header(name, value)] for name, value in request.headers],
        "status": exchange.status,
        "response_lost": exchange.was_lost,
    }


def masked_header(name: str, value: str) -> str:
    return _MASK if _SECRET_HEADER.search(name) else _without_signature(value)


def _without_signature(text: str) -> str:
    return _SIGNATURE.sub(rf"\1{_MASK}", text)


class Record:
    """A file that gets a line for each exchange, at once. Use as a context manager, and as `HttpWatch.observe`."""

    def __init__(self, path: Path) -> None:
        """Appends. Raises UserError."""
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, exchange: Exchange) -> None:
        self._file.write(msgspec.json.encode(exchange_document(exchange)) + b"\n")
