"""What a proxy sees of the HTTP that goes through it: requests on record, and responses to be lost. Without I/O.

Plain HTTP/1.x only. Bytes that are not HTTP (TLS, MQTT) pass untouched and leave no record but a count.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from simulator.fault_proxy.http_scanner import (
    Head,
    Headers,
    Part,
    Scanner,
    Unreadable,
    request_body_bytes,
    response_body_bytes,
)

Loss = Literal["reset", "silent"]


@dataclass(frozen=True)
class Request:
    """One request's head, as it came from the client; its body is not kept."""

    connection: int
    """The proxy's number for the connection, from 1."""
    method: str
    path: str
    query: str
    """As sent: without the question mark, not decoded."""
    headers: Headers
    """In order, names as sent; a name may occur again."""

    @property
    def query_items(self) -> list[tuple[str, str]]:
        """The query's pairs, decoded, empty values included."""
        return parse_qsl(self.query, keep_blank_values=True)

    def header(self, name: str) -> str | None:
        """The first value of a header, its name in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Exchange:
    """What became of a request."""

    request: Request
    status: int | None
    """That of the server's final response; None when none came before the connection ended."""
    was_lost: bool = False
    """The client saw nothing of the response."""


def any_request(request: Request) -> bool:
    return True


@dataclass(frozen=True)
class LoseResponse:
    """The request is delivered whole, and no byte of its response comes back.

    `reset`: the client's connection is reset in place of the response. `silent`: it stays open, and nothing more comes.
    """

    matches: Callable[[Request], bool] = any_request
    nth: int | None = 1
    """Which of the matching requests, counted from 1 since the rule was given; None: each of them."""
    then: Loss = "reset"


class HttpWatch:
    """The record and the rules of one proxy, over all its connections. Keeps the latest `max_requests` requests."""

    def __init__(self, max_requests: int = 10_000) -> None:
        self._requests: deque[Request] = deque(maxlen=max_requests)
        self._lost: deque[Request] = deque(maxlen=max_requests)
        self._rules: list[_CountedRule] = []
        self.observe: Callable[[Exchange], None] = lambda exchange: None
        """Told of each request once: when its response begins, or when there will be none."""
        self.seen = 0
        """Requests since the start, the forgotten ones too."""
        self.unreadable = 0
        """Connections that were not, or not to their end, HTTP/1.x."""

    @property
    def requests(self) -> list[Request]:
        """In the order in which their heads came."""
        return list(self._requests)

    @property
    def lost(self) -> list[Request]:
        """Requests whose response came and was withheld."""
        return list(self._lost)

    def add_rule(self, rule: LoseResponse) -> None:
        """Counts, and applies to, requests whose head comes after this."""
        self._rules.append(_CountedRule(rule))

    def clear_rules(self) -> None:
        self._rules.clear()

    def note_request(self, request: Request) -> Loss | None:
        """Puts it on record; says whether, and how, its response is to be lost."""
        self.seen += 1
        self._requests.append(request)
        losses = [counted.rule.then for counted in self._rules if counted.hits(request)]
        return losses[0] if losses else None

    def note_lost(self, request: Request) -> None:
        self._lost.append(request)


@dataclass
class _CountedRule:
    rule: LoseResponse
    matched: int = 0

    def hits(self, request: Request) -> bool:
        if not self.rule.matches(request):
            return False
        self.matched += 1
        return self.rule.nth in (None, self.matched)


@dataclass
class _Open:
    request: Request
    loss: Loss | None
    is_whole: bool = False
    """The last byte of the request has come."""
    is_told: bool = False


class HttpConnection:
    """One connection's requests and responses, paired (pipelined ones too)."""

    def __init__(self, watch: HttpWatch, number: int) -> None:
        self._watch = watch
        self._number = number
        self._pending: deque[_Open] = deque()
        self._arriving: _Open | None = None
        self._losing: _Open | None = None
        self._is_readable = True
        self._requests = Scanner(request_body_bytes)
        self._responses = Scanner(self._response_body_bytes)

    @property
    def is_losing(self) -> bool:
        """A response that is to be lost has begun: nothing more goes to the client."""
        return self._losing is not None

    @property
    def due_loss(self) -> Loss | None:
        """What is to happen to the client now, once the whole request has reached the server."""
        return self._losing.loss if self._losing is not None and self._losing.is_whole else None

    def note_from_client(self, data: bytes) -> None:
        if not self._is_readable:
            return
        try:
            for part in self._requests.feed(data):
                if part.head is not None:
                    self._begin(part.head)
                if part.ends and self._arriving is not None:
                    self._arriving.is_whole = True
        except Unreadable:
            self._give_up()

    def pass_from_server(self, data: bytes) -> bytes:
        """Which bytes may go to the client now. An unfinished head is held until it is whole."""
        if self.is_losing:
            return b""
        if not self._is_readable:
            return self._responses.flush() + data
        passed = []
        try:
            for part in self._responses.feed(data):
                if self._is_lost(part):
                    break
                passed.append(part.raw)
        except Unreadable:
            self._give_up()
            passed.append(self._responses.flush())
        return b"".join(passed)

    def end_from_server(self) -> bytes:
        """What was held when the server had no more to say."""
        return b"" if self.is_losing else self._responses.flush()

    def close(self) -> None:
        """The connection has ended: what has no response by now gets none."""
        for exchange in self._pending:
            self._tell(exchange, None)

    def _tell(self, exchange: _Open, status: int | None) -> None:
        if not exchange.is_told:
            exchange.is_told = True
            was_lost = status is not None and exchange.loss is not None
            self._watch.observe(Exchange(exchange.request, status, was_lost))

    def _begin(self, head: Head) -> None:
        method, target, _ = head.start
        path, _, query = target.partition("?")
        request = Request(self._number, method, path, query, head.headers)
        self._arriving = _Open(request, self._watch.note_request(request))
        self._pending.append(self._arriving)

    def _is_lost(self, part: Part) -> bool:
        is_interim = part.head is not None and part.head.start[1].startswith("1") and part.head.start[1] != "101"
        if not self._pending or is_interim:
            return False
        exchange = self._pending[0]
        if part.head is not None:
            self._tell(exchange, int(part.head.start[1]) if part.head.start[1].isdigit() else None)
        if part.head is not None and exchange.loss is not None:
            self._losing = exchange
            self._watch.note_lost(exchange.request)
            return True
        if part.ends:
            self._pending.popleft()
        return False

    def _response_body_bytes(self, head: Head) -> int:
        return response_body_bytes(self._pending[0].request.method if self._pending else "GET", head)

    def _give_up(self) -> None:
        if self._is_readable:
            self._is_readable = False
            self._watch.unreadable += 1
