"""HTTP exchanges as lines of JSON for a file, with what is secret in them masked.

Masked are the values of headers whose names speak of authorization, cookies or keys, and those of the query keys that
carry secrets (`sig`, `code`, `token`, `key` and the like), in a query or anywhere in a header. Bodies are not recorded.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from simulator.errors import UserError
from simulator.fault_proxy.http_watch import Exchange

_MASK: Final = "***"
_SECRET_HEADER: Final = re.compile(
    r"authorization|cookie|(?:api-?|functions-|subscription-|encryption-)key$", re.IGNORECASE
)
# Also where a whole URL is a header's value or, encoded once more (after %26 or %3F), a query's. Not a folder `key=1`.
_SECRET_ITEM: Final = re.compile(
    r"(?:(?<![a-z0-9_/])|(?<=%26)|(?<=%3f))"
    r"((?:sig|code|(?:access_)?token|(?:api[-_]?|subscription[-_])?key)(?:=|%3d))[^&\s\"]*",
    re.IGNORECASE,
)


def exchange_document(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    return {
        "connection": request.connection,
        "method": request.method,
        "path": _without_secrets(request.path),
        "query": _without_secrets(request.query),
        "headers": [[name, masked_header(name, value)] for name, value in request.headers],
        "status": exchange.status,
        "response_lost": exchange.was_lost,
    }


def masked_header(name: str, value: str) -> str:
    return _MASK if _SECRET_HEADER.search(name) else _without_secrets(value)


def _without_secrets(text: str) -> str:
    return _SECRET_ITEM.sub(rf"\1{_MASK}", text)


class Record:
    """A file that gets a line for each exchange, at once. Use as a context manager, and as `HttpWatch.observe`.

    When a line cannot be written, `stopped` is told why, and nothing is recorded any more: what is observed goes on.
    """

    def __init__(self, path: Path, stopped: Callable[[OSError], None]) -> None:
        """Appends; a new file is its owner's alone. Raises UserError."""
        self._stopped = stopped
        try:
            path.touch(mode=0o600)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, exchange: Exchange) -> None:
        if self._file.closed:
            return
        line = msgspec.json.encode(exchange_document(exchange)) + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.close()
            self._stopped(error)
