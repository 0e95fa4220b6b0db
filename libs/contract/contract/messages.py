"""The messages between our modules, one structure per schema.

Every body is UTF-8 JSON whose `schema` names its structure and version. Unknown fields are ignored, so that a version
may grow; a version this code does not know is refused whole (`schema_unsupported`), goes to the rejected lane and can
be replayed from there. Sizes are in `contract.limits`.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import msgspec

from contract.limits import BODY_LIMIT_BYTES, REJECTED_PART_BYTES

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"
# Application properties that every message between our modules carries, beside its message id.
EPOCH_PROPERTY = "epoch"
NUMBER_PROPERTY = "n"
# edgeHub does not tell a receiver the output's name, and `n` counts per output.
OUTPUT_PROPERTY = "output"

NoScore = Literal["warm_up", "stride", "gap", "missing_feature", "no_model", "not_finite"]


class Unreadable(Exception):
    """A body that is no message of the expected kind; `reason` is the code under which it is rejected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Model(msgspec.Struct, frozen=True):
    name: str
    version: str
    digest: str


class Source(msgspec.Struct, frozen=True):
    """The device message that rows came in. `message` is its id, or a keyed hash of it where it had none."""

    device: str
    module: str
    message: str
    enqueued: str | None = None


class ScoredRow(msgspec.Struct, omit_defaults=True):
    """One reading and what the model made of it. `reading` is the sender's own JSON text."""

    i: int
    series: str
    reading: msgspec.Raw
    t: str | None = None
    score: float | None = None
    threshold: float | None = None
    anomaly: bool = False
    no_score: NoScore | None = None
    why: list[tuple[str, float]] = []


class Run(msgspec.Struct):
    source: Source
    rows: list[ScoredRow]


class Scores(msgspec.Struct, tag_field="schema", tag="edgeweir.scores/1"):
    """scorer to router: rows of one or more input messages."""

    model: Model | None
    runs: list[Run]


class CompliantRow(msgspec.Struct, omit_defaults=True):
    """What the policy lets out of one row; a field it denies is absent, not null."""

    device: str | None = None
    module: str | None = None
    message: str | None = None
    i: int | None = None
    t: str | None = None
    series: str | None = None
    score: float | None = None
    threshold: float | None = None
    anomaly: bool | None = None
    no_score: str | None = None
    why: list[tuple[str, float]] | None = None
    enqueued: str | None = None
    reading: msgspec.Raw | None = None


class Readings(msgspec.Struct, tag_field="schema", tag="edgeweir.readings/1"):
    """router to uploader: compliant rows (`CompliantRow` as JSON text)."""

    policy: str
    site: str
    model: Model | None
    rows: list[msgspec.Raw]


class EpisodeEvent(msgspec.Struct, omit_defaults=True):
    """One step in the life of an episode. Its `rows` are those added since the event before: each row stands once."""

    kind: Literal["opened", "updated", "closed"]
    episode: str
    rows_total: int
    series: str | None = None
    device: str | None = None
    started: str | None = None
    last: str | None = None
    ended: str | None = None
    peak_score: float | None = None
    t: str | None = None
    rows: list[msgspec.Raw] = []


class Anomalies(msgspec.Struct, tag_field="schema", tag="edgeweir.anomalies/1"):
    policy: str
    site: str
    model: Model | None
    rows: list[EpisodeEvent]


class FieldAggregate(msgspec.Struct, frozen=True):
    count: int
    min: float
    max: float
    mean: float


class InsightWindow(msgspec.Struct, omit_defaults=True):
    """Aggregates over one series' tumbling window [t, end), computed after the policy's transforms.

    `late_rows` and `untimed_rows` came since the window before: too late for a window of their own, or without a time.
    """

    rows: int
    anomalies: int
    unscored: int
    t: str | None = None
    end: str | None = None
    series: str | None = None
    device: str | None = None
    late_rows: int = 0
    untimed_rows: int = 0
    score_max: float | None = None
    score_mean: float | None = None
    fields: dict[str, FieldAggregate] = {}


class Insights(msgspec.Struct, tag_field="schema", tag="edgeweir.insights/1"):
    policy: str
    site: str
    model: Model | None
    rows: list[InsightWindow]


class RejectedPart(msgspec.Struct, omit_defaults=True):
    """What could not be understood, with the original bytes.

    `i` is the index of one bad row in an otherwise good message, absent when the whole message was rejected.
    """

    reason: str
    detail: str
    device: str
    module: str
    message: str
    input: str
    received: str
    body_b64: str
    i: int | None = None
    part: int = 0
    parts: int = 1
    content_type: str | None = None
    content_encoding: str | None = None

    @property
    def body(self) -> bytes:
        """Raises Unreadable when the text is not base64."""
        try:
            return b64decode(self.body_b64, validate=True)
        except binascii.Error as error:
            raise Unreadable("bad_shape", f"body_b64 is not base64: {error}") from None


class Rejected(msgspec.Struct, tag_field="schema", tag="edgeweir.rejected/1"):
    site: str
    rows: list[RejectedPart]


Message = Scores | Readings | Anomalies | Insights | Rejected
M = TypeVar("M", Scores, Readings, Anomalies, Insights, Rejected)

_ENCODER = msgspec.json.Encoder()


class _SchemaOnly(msgspec.Struct):
    schema: str = ""


def encode(message: msgspec.Struct) -> bytes:
    return _ENCODER.encode(message)


def decode(kind: type[M], body: bytes) -> M:
    """Raises Unreadable: `not_json`, `schema_unsupported` or `bad_shape`."""
    try:
        if not body.isascii():
            body.decode()  # what is taken as Raw is not checked for UTF-8 below
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        expected = kind.__struct_config__.tag
        try:
            found = msgspec.json.decode(body, type=_SchemaOnly).schema
        except msgspec.ValidationError:
            found = ""
        if found != expected:
            raise Unreadable("schema_unsupported", f"expected {expected}, found {found or 'no schema'}") from None
        raise Unreadable("bad_shape", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("not_json", str(error)) from None


def reject(
    body: bytes,
    *,
    reason: str,
    detail: str,
    source: Source,
    input_name: str,
    received: str,
    i: int | None = None,
    content_type: str | None = None,
    content_encoding: str | None = None,
) -> Iterator[RejectedPart]:
    """The parts that carry the original bytes; one part even when there are none."""
    parts = max(1, -(-len(body) // REJECTED_PART_BYTES))
    for part in range(parts):
        piece = body[part * REJECTED_PART_BYTES : (part + 1) * REJECTED_PART_BYTES]
        yield RejectedPart(
            reason=reason,
            detail=detail[:500],
            device=source.device,
            module=source.module,
            message=source.message,
            input=input_name,
            received=received,
            body_b64=b64encode(piece).decode(),
            i=i,
            part=part,
            parts=parts,
            content_type=content_type,
            content_encoding=content_encoding,
        )


def chunk_by_size(sizes: Iterable[int], *, overhead: int, limit: int = BODY_LIMIT_BYTES) -> Iterator[slice]:
    """Cut a list of encoded items into the fewest leading slices whose joined size stays within the limit.

    `overhead` is what surrounds the items; each item costs one more byte for its comma. An item that alone exceeds
    the limit gets a slice of its own: the caller must have refused it before.
    """
    start, total = 0, overhead
    index = -1
    for index, size in enumerate(sizes):
        if index > start and total + size + 1 > limit:
            yield slice(start, index)
            start, total = index, overhead
        total += size + 1
    if index >= start:
        yield slice(start, index + 1)
