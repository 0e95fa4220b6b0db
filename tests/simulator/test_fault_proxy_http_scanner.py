"""Framing of HTTP messages, whatever the pieces they come in."""

from collections.abc import Callable

import pytest

from simulator.fault_proxy.http_scanner import Head, Part, Scanner, Unreadable, request_body_bytes, response_body_bytes
from simulator.fault_proxy.http_watch import HttpConnection, HttpWatch, LoseResponse

POST = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /"
CHUNKED = (
    b"PUT /chunks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nGET /\r\n0A\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
)
GET = b"GET /plain HTTP/1.1\r\n\r\n"
PIPELINE = POST + CHUNKED + b"\r\n" + GET


def scan(stream: bytes, piece: int, body_bytes: Callable[[Head], int] = request_body_bytes) -> list[Part]:
    scanner = Scanner(body_bytes)
    return [part for i in range(0, len(stream), piece) for part in scanner.feed(stream[i : i + piece])]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 50, 1000])
def test_pipelined_requests_are_told_apart_in_any_pieces(piece: int) -> None:
    parts = scan(PIPELINE, piece)
    assert b"".join(part.raw for part in parts) == PIPELINE
    assert [part.head.start[:2] for part in parts if part.head] == [
        ("POST", "/a?b=c"),
        ("PUT", "/chunks"),
        ("GET", "/plain"),
    ]
    assert sum(part.ends for part in parts) == 3
    assert parts[-1].ends


def test_headers_keep_their_order_names_and_repetitions() -> None:
    (part,) = scan(b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a:  2 \r\nEmpty:\r\n\r\n", 1000)
    assert part.head is not None
    assert part.head.headers == (("X-A", "1"), ("x-a", "2"), ("Empty", ""))
    assert part.head.values("x-a") == ["1", "2"]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x16\x03\x01",
        b"\x10\x20\x00\x04MQTT",
        b"HELO there\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"GET /" + b"a" * 70_000,
    ],
)
def test_what_is_not_http_is_said_to_be_unreadable(stream: bytes) -> None:
    with pytest.raises(Unreadable):
        scan(stream, 1000)


@pytest.mark.parametrize(
    ("method", "response", "is_whole"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        ("GET", b"HTTP/1.1 204\r\n\r\n", True),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", True),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False),
        ("GET", b"HTTP/1.1 101 Switching Protocols\r\n\r\nanything", False),
    ],
)
def test_a_response_is_as_long_as_its_request_says(method: str, response: bytes, is_whole: bool) -> None:
    parts = scan(response, 1, lambda head: response_body_bytes(method, head))
    assert b"".join(part.raw for part in parts) == response
    assert parts[-1].ends is is_whole


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_of_pipelined_requests_only_the_chosen_one_loses_its_response(piece: int) -> None:
    watch = HttpWatch()
    watch.add_rule(LoseResponse(nth=2))
    connection = HttpConnection(watch, 1)
    connection.note_from_client(PIPELINE)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    answers = interim + ok(b"one") + interim + ok(b"two") + ok(b"three")
    passed = b"".join(connection.pass_from_server(answers[i : i + piece]) for i in range(0, len(answers), piece))
    assert passed == interim + ok(b"one") + interim
    assert connection.due_loss == "reset"
    assert [request.path for request in watch.lost] == ["/chunks"]


def test_a_loss_is_due_only_when_the_whole_request_has_come() -> None:
    watch = HttpWatch()
    watch.add_rule(LoseResponse(then="silent"))
    connection = HttpConnection(watch, 1)
    connection.note_from_client(POST[:-1])
    assert connection.pass_from_server(ok(b"early")) == b""
    assert connection.is_losing
    assert connection.due_loss is None
    connection.note_from_client(POST[-1:])
    assert connection.due_loss == "silent"


def test_rules_count_the_requests_that_they_match() -> None:
    watch = HttpWatch()
    watch.add_rule(LoseResponse(matches=lambda request: request.method == "GET", nth=None, then="silent"))
    watch.add_rule(LoseResponse(matches=lambda request: request.path == "/a", nth=2))
    losses = []
    for line in (b"PUT /a", b"GET /b", b"PUT /a", b"PUT /a", b"GET /b"):
        connection = HttpConnection(watch, 1)
        connection.note_from_client(line + b" HTTP/1.1\r\n\r\n")
        connection.pass_from_server(ok(b""))
        losses.append(connection.due_loss)
    assert losses == [None, "silent", "reset", None, "silent"]


def test_the_record_is_bounded_and_counts_what_it_forgot() -> None:
    watch = HttpWatch(max_requests=10)
    connection = HttpConnection(watch, 1)
    for i in range(100):
        connection.note_from_client(b"GET /%d HTTP/1.1\r\n\r\n" % i)
    assert [request.path for request in watch.requests] == [f"/{i}" for i in range(90, 100)]
    assert watch.seen == 100


def test_other_protocols_pass_untouched() -> None:
    watch = HttpWatch()
    watch.add_rule(LoseResponse(nth=None))
    connection = HttpConnection(watch, 1)
    connection.note_from_client(b"\x16\x03\x01 hello")
    assert connection.pass_from_server(b"\x16\x03\x03 hello") == b"\x16\x03\x03 hello"
    assert (watch.seen, watch.unreadable) == (0, 1)


def test_a_readable_beginning_is_passed_before_an_unreadable_rest() -> None:
    watch = HttpWatch()
    connection = HttpConnection(watch, 1)
    connection.note_from_client(GET)
    answers = ok(b"one") + b"\x00\x01 garbage"
    assert connection.pass_from_server(answers) + connection.pass_from_server(b"!") == answers + b"!"
