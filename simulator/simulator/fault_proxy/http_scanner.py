"""Where HTTP/1.1 messages begin and end in a stream of bytes (RFC 9112, sections 6 and 7), without I/O.

It reads framing only: start line, headers, length of the body. What it cannot read raises `Unreadable`, and is then
some other protocol to whoever listens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

_MAX_LINES_BYTES = 64 * 1024
_CHUNKED = -1
_UNTIL_CLOSE = -2

Headers = tuple[tuple[str, str], ...]


class Unreadable(Exception):
    """Not HTTP/1.x, or a head or chunk line of more than 64 KiB."""


@dataclass(frozen=True)
class Head:
    start: tuple[str, str, str]
    """The three words of the start line; the last may be empty or have spaces."""
    headers: Headers

    def values(self, name: str) -> list[str]:
        """All values of a header, by its name in lower case."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True)
class Part:
    """A run of bytes of one message. `head` is set on the part that is the head, `ends` on the message's last one."""

    raw: bytes
    head: Head | None = None
    ends: bool = False


class Scanner:
    """Bytes in any pieces in, parts out. The `raw` of all parts, joined, is what came in; unfinished lines are held."""

    def __init__(self, body_bytes: Callable[[Head], int]) -> None:
        self._body_bytes = body_bytes
        self._held = b""
        self._state: Literal["head", "length", "close", "chunk_size", "chunk", "trailers"] = "head"
        self._remaining = 0

    def feed(self, data: bytes) -> Iterator[Part]:
        """Raises Unreadable only after the parts before it were given; what follows is still held then."""
        self._held += data
        while self._held:
            part = self._next()
            if part is None:
                if len(self._held) > _MAX_LINES_BYTES:
                    raise Unreadable("a line or head of more than 64 KiB")
                break
            yield part

    def flush(self) -> bytes:
        """What is held of an unfinished line, for whoever must pass it on."""
        held, self._held = self._held, b""
        return held

    def _next(self) -> Part | None:
        match self._state:
            case "head":
                return self._take_head()
            case "length" | "chunk":
                return self._take_bytes()
            case "close":
                return Part(self.flush())
            case "chunk_size":
                return self._take_chunk_size()
            case "trailers":
                return self._take_trailer()

    def _take_head(self) -> Part | None:
        # Empty lines before a start line are to be ignored (RFC 9112, section 2.2).
        blank = len(self._held) - len(self._held.lstrip(b"\r\n"))
        end = self._held.find(b"\r\n\r\n", blank)
        if end < 0:
            _refuse_other_protocols(self._held[blank:])
            return None
        head = _parse_head(self._held[blank:end])
        length = self._body_bytes(head)
        raw = self._cut(end + 4)
        if length == 0:
            return Part(raw, head, ends=True)
        self._state = "chunk_size" if length == _CHUNKED else "close" if length == _UNTIL_CLOSE else "length"
        self._remaining = max(0, length)
        return Part(raw, head)

    def _take_bytes(self) -> Part:
        raw = self._cut(min(self._remaining, len(self._held)))
        self._remaining -= len(raw)
        if self._remaining:
            return Part(raw)
        is_chunk = self._state == "chunk"
        self._state = "chunk_size" if is_chunk else "head"
        return Part(raw, ends=not is_chunk)

    def _take_chunk_size(self) -> Part | None:
        end = self._held.find(b"\r\n")
        if end < 0:
            return None
        try:
            size = int(self._held[:end].partition(b";")[0].strip(), 16)
        except ValueError as error:
            raise Unreadable("a chunk without a size") from error
        if size < 0:
            raise Unreadable("a chunk of negative size")
        self._state = "chunk" if size else "trailers"
        # The line end after a chunk belongs to it.
        self._remaining = size + 2
        return Part(self._cut(end + 2))

    def _take_trailer(self) -> Part | None:
        end = self._held.find(b"\r\n")
        if end < 0:
            return None
        if end == 0:
            self._state = "head"
        return Part(self._cut(end + 2), ends=end == 0)

    def _cut(self, size: int) -> bytes:
        raw, self._held = self._held[:size], self._held[size:]
        return raw


def request_body_bytes(head: Head) -> int:
    """RFC 9112, section 6.3, for a request: chunked, or the stated length, or nothing."""
    length = _stated_length(head)
    return 0 if length is None else length


def response_body_bytes(method: str, head: Head) -> int:
    """RFC 9112, section 6.3, for the response to a request of this method."""
    status = head.start[1]
    if status == "101" or (method == "CONNECT" and status.startswith("2")):
        return _UNTIL_CLOSE
    if method == "HEAD" or status.startswith("1") or status in ("204", "304"):
        return 0
    length = _stated_length(head)
    return _UNTIL_CLOSE if length is None else length


def _stated_length(head: Head) -> int | None:
    if any("chunked" in value.lower() for value in head.values("transfer-encoding")):
        return _CHUNKED
    lengths = set(head.values("content-length"))
    if not lengths:
        return None
    text = lengths.pop()
    if lengths or not (text.isascii() and text.isdigit()):
        raise Unreadable("a Content-Length that is no number")
    return int(text)


def _parse_head(raw: bytes) -> Head:
    start, *lines = raw.decode("latin-1").split("\r\n")
    words = start.split(" ", 2)
    if len(words) < 2 or not (words[0].startswith("HTTP/1.") or words[-1].startswith("HTTP/1.")):
        raise Unreadable("not an HTTP/1.x start line")
    pairs = [line.partition(":") for line in lines]
    if any(not colon for _, colon, _ in pairs):
        raise Unreadable("a header line without a colon")
    return Head((words[0], words[1], words[2] if len(words) > 2 else ""), tuple((k, v.strip()) for k, _, v in pairs))


def _refuse_other_protocols(beginning: bytes) -> None:
    """A TLS hello or an MQTT packet has no blank line to wait for: it is told from HTTP by its first byte."""
    if beginning and not beginning[:1].isalpha():
        raise Unreadable("not HTTP")
