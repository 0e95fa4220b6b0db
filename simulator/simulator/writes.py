"""Whether storage was written as it must be: each blob created once, never over another, never changed. Pure.

Judged from the requests that a recording proxy in front of storage has seen, with the status that the server gave,
whether or not its response came back.
"""

from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote

from simulator.fault_proxy import Exchange, Request

_CREATED = 201
# Neither makes nor changes a blob: blocks that no list has named are not part of it.
_HARMLESS = frozenset({"block", "lease"})


def overwrites(exchanges: Iterable[Exchange]) -> list[str]:
    """A line for each blob that was created more than once, each write that could replace a blob, each change of one.

    Paths are those of an emulator: account, container, blob. Requests about an account or a container are passed over.
    """
    problems: list[str] = []
    created: Counter[str] = Counter()
    for request, status in ((each.request, each.status) for each in exchanges):
        if request.method in ("GET", "HEAD", "OPTIONS") or (name := _blob(request)) is None:
            continue
        query = {key.lower(): value.lower() for key, value in request.query_items}
        operation = query.get("comp", "")
        if request.method == "PUT" and operation in ("", "blocklist"):
            if request.header("If-None-Match") != "*":
                problems.append(f"{name} is written without If-None-Match: *")
            created[name] += status == _CREATED
        elif operation not in _HARMLESS and status is not None and 200 <= status < 300:
            problems.append(f"{name} is changed by {request.method} {operation}".rstrip())
    # First what has happened, then what could have.
    return [f"{name} is created {count} times" for name, count in created.items() if count > 1] + problems


def _blob(request: Request) -> str | None:
    if any(key.lower() == "restype" for key, _ in request.query_items):
        return None
    parts = request.path.lstrip("/").split("/", 2)
    return unquote(parts[2]) if len(parts) == 3 and parts[2] else None
