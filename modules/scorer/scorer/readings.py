"""From an input's body to its rows. Pure.

A body is a JSON object (one reading) or an array of them, gzip where contentEncoding says so. What is decided here:

- A body that is not UTF-8 JSON is rejected whole. NaN and Infinity are not JSON (RFC 8259), so a body that holds one
  is rejected whole, with its bytes kept.
- An element that is no object is rejected alone; so is a reading that would not fit a message with its score.
- A feature is a finite JSON number. A boolean, a text of digits, null, and a number beyond float64 are a missing
  feature, and the manifest's rule for it applies. The row itself travels on.
- A reading's text is kept byte for byte (`1.10` stays `1.10`); only line breaks between tokens are taken out, because
  rows are stored as lines.
"""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from contract.bundle import Manifest, feature_number
from contract.limits import BODY_LIMIT_BYTES, INFLATED_LIMIT_BYTES
from contract.messages import Unreadable
from contract.pointer import MISSING, parse_pointer, resolve
from contract.timestamps import parse_timestamp

_GZIP_MAGIC = b"\x1f\x8b"
# A score, three reasons with long names, and the row's own keys; what else a row adds to its reading.
ROW_OVERHEAD_BYTES = 8 * 1024
SERIES_LIMIT_CHARS = 512
# A body of `{}` a thousand times over must not become an outbox of a gigabyte.
ROWS_LIMIT = 20_000

_DECODER = msgspec.json.Decoder()
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_WHOLE = msgspec.json.Decoder(msgspec.Raw)


class Row(msgspec.Struct, frozen=True, gc=False):
    """One reading. `values` are in the manifest's order of features, NaN where missing."""

    i: int
    text: bytes
    micros: int | None
    series: str
    values: tuple[float, ...]


class BadElement(msgspec.Struct, frozen=True):
    i: int
    text: bytes
    reason: Literal["not_a_reading", "too_large"]
    detail: str


class Fields:
    """Where a manifest says that things are; without one, nothing is known but the sender."""

    def __init__(self, manifest: Manifest | None) -> None:
        self._timestamp = _tokens(manifest.timestamp_pointer if manifest else None)
        self._series = _tokens(manifest.series_pointer if manifest else None)
        self._features = tuple(parse_pointer(feature.pointer) for feature in manifest.features) if manifest else ()
        flat = all(len(tokens) == 1 for tokens in self._features)
        self._top_level = [tokens[0] for tokens in self._features] if flat else None

    def micros(self, document: object) -> int | None:
        return None if self._timestamp is None else parse_timestamp(resolve(document, self._timestamp))

    def series(self, document: object, fallback: str) -> str:
        """A text or an integer names the series; anything else does not, and the sender does."""
        value = MISSING if self._series is None else resolve(document, self._series)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else fallback

    def values(self, document: object) -> tuple[float, ...]:
        """A reading's numbers, NaN where missing. The document must be one of `decode_reading`."""
        if self._top_level is not None and isinstance(document, dict):
            # Nearly every reading is flat; this is a third of the time that a row takes.
            found = [document.get(name) for name in self._top_level]
            return tuple([value if type(value) is float else _number(value) for value in found])
        return tuple(_number(resolve(document, tokens)) for tokens in self._features)


def inflate(body: bytes, content_encoding: str | None) -> bytes:
    """The JSON text. Raises Unreadable: `bad_gzip` or `too_large`."""
    if (content_encoding or "").strip().lower() != "gzip":
        return body
    pieces: list[bytes] = []
    left, rest = INFLATED_LIMIT_BYTES, body
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            piece = member.decompress(rest, left + 1)
        except zlib.error as error:
            raise Unreadable("bad_gzip", str(error)) from None
        left -= len(piece)
        if left < 0:
            raise Unreadable("too_large", f"the body inflates to more than {INFLATED_LIMIT_BYTES} bytes")
        if not member.eof:
            raise Unreadable("bad_gzip", "the gzip data ends too soon")
        pieces.append(piece)
        rest = member.unused_data
    if not pieces:
        raise Unreadable("bad_gzip", "the body is empty")
    return b"".join(pieces)


def split(body: bytes) -> list[bytes]:
    """The elements' own texts. Raises Unreadable: `not_json`, `not_a_reading` or `too_large`."""
    try:
        body.decode()
        start = body.lstrip()[:1]
        if start == b"[":
            elements = _ELEMENTS.decode(body)
            if len(elements) > ROWS_LIMIT:
                raise Unreadable("too_large", f"the body holds {len(elements)} rows, {ROWS_LIMIT} are allowed")
            return [bytes(element) for element in elements]
        whole = bytes(_WHOLE.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable("not_json", str(error)) from None
    except RecursionError:
        raise Unreadable("not_json", "nested too deeply") from None
    if start != b"{":
        raise Unreadable("not_a_reading", "the body is neither an object nor an array of objects")
    return [whole]


def read_rows(
    elements: Sequence[bytes], fields: Fields, *, fallback_series: str, message_overhead: int
) -> Iterator[Row | BadElement]:
    """One outcome per element, in order. `message_overhead` is what a message needs beside its rows."""
    limit = BODY_LIMIT_BYTES - message_overhead - ROW_OVERHEAD_BYTES
    for i, text in enumerate(elements):
        if not text.startswith(b"{"):
            yield BadElement(i, text, "not_a_reading", "the element is not an object")
            continue
        kept = msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text
        if len(kept) > limit:
            yield BadElement(i, text, "too_large", f"the reading has {len(kept)} bytes, {limit} fit into a message")
            continue
        try:
            document = decode_reading(text)
        except (ValueError, RecursionError) as error:
            yield BadElement(i, text, "not_a_reading", f"the element cannot be read: {error}")
            continue
        series = fields.series(document, fallback_series)
        if len(series) > SERIES_LIMIT_CHARS:
            detail = f"the series' name has {len(series)} characters, {SERIES_LIMIT_CHARS} are allowed"
            yield BadElement(i, text, "too_large", detail)
            continue
        yield Row(i, kept, fields.micros(document), series, fields.values(document))


def decode_reading(text: bytes) -> object:
    """Raises ValueError or RecursionError. A number beyond float64 becomes null, which is no feature."""
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError:
        # The only such error without a type: a number out of range. Valid JSON, so the row is not to blame.
        return json.loads(text, parse_int=_parse_int, parse_float=_parse_float)


def has_timestamp(body: bytes, fields: Fields) -> bool:
    """Whether at least one row says when it was measured: then equal bytes are a repeat, not another measurement."""
    try:
        elements = split(inflate(body, "gzip" if body.startswith(_GZIP_MAGIC) else None))
        return any(
            fields.micros(decode_reading(element)) is not None for element in elements if element.startswith(b"{")
        )
    except (Unreadable, ValueError, RecursionError):
        return False


def _number(value: object) -> float:
    found = feature_number(value)
    return math.nan if found is None else found


def _parse_int(digits: str) -> int | None:
    # Python refuses to convert more than 4,300 digits, and float64 ends at 309.
    return int(digits) if len(digits) < 400 else None


def _parse_float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _tokens(pointer: str | None) -> tuple[str, ...] | None:
    return None if pointer is None else parse_pointer(pointer)
