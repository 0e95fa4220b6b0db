"""Whether storage was written as it must be: each blob created once, never over another, never changed. Pure.

Judged from the requests that a recording proxy in front of storage has seen, with the status that the server gave,
whether or not its response came back.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

_CREATED = 201
# Neither makes nor changes a blob: blocks that no list has named are not part of it.
_HARMLESS = frozenset({"block", "lease"})


class Request(Protocol):
    """As `simulator.fault_proxy` records it. `status` is None when the server gave none."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def query_items(self) -> list[tuple[str, str]]: ...
    def header(self, name: str) -> str | None: ...


def overwrites(requests: Iterable[Request]) -> list[str]:
    """A line for each blob that was created more than once, each write that could replace a blob, each change of one.

    Paths are those of an emulator: account, container, blob. Requests about an account or a container are passed over.
    """
    problems: list[str] = []
    created: Counter[str] = Counter()
    for request in requests:
        if request.method in ("GET", "HEAD", "OPTIONS") or (name := _blob(request)) is None:
            continue
        query = {key.lower(): value.lower() for key, value in request.query_items}
        operation = query.get("comp", "")
        if request.method == "PUT" and operation in ("", "blocklist"):
            if request.header("If-None-Match") != "*":
                problems.append(f"{name} is written without If-None-Match: *")
            created[name] += request.status == _CREATED
        elif operation not in _HARMLESS and request.status is not None and 200 <= request.status < 300:
            problems.append(f"{name} is changed by {request.method} {operation}".rstrip())
    # First what has happened, then what could have.
    return [f"{name} is created {count} times" for name, count in created.items() if count > 1] + problems


def _blob(request: Request) -> str | None:
    if any(key.lower() == "restype" for key, _ in request.query_items):
        return None
    parts = request.path.lstrip("/").split("/", 2)
    return unquote(parts[2]) if len(parts) == 3 and parts[2] else None
