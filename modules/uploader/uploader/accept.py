"""What a lane message is to the spool: its rows sorted into hour folders, its bytes kept as they came.

Almost every message lies within one hour. For it one pass of the JSON decoder, which reads only each row's time,
proves that the text is well formed and finds the earliest and the latest row; the body is spooled untouched. Only a
message that spans hours, or has a row without a readable time, is taken apart row by row.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from contract import messages
from contract.batch import SPLICED_KEYS, hour_folder, row_prefix, stored_lines
from contract.lanes import Lane
from contract.messages import Model, Unreadable
from contract.timestamps import parse_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {
    "anomalies": messages.Anomalies,
    "insights": messages.Insights,
    "readings": messages.Readings,
    "rejected": messages.Rejected,
}


class Group(NamedTuple):
    """What all rows of a batch have in common; "" where a message had none (the rejected lane has no policy)."""

    lane: Lane
    folder: str
    site: str
    policy: str
    model: str

    def prefix(self) -> bytes:
        return row_prefix(self.lane, policy=self.policy or None, site=self.site, model=self.model or None)


class Portion(NamedTuple):
    """The part of a message that falls into one group. `body` is a whole lane message."""

    group: Group
    rows: int
    body: bytes


class _Times(msgspec.Struct):
    """A row, as far as the fast way looks at it. Any value of a spliced key fails: it could only be UNSET."""

    t: datetime | None = None
    policy: UnsetType = UNSET
    site: UnsetType = UNSET
    model: UnsetType = UNSET


class _RejectedTimes(msgspec.Struct):
    t: datetime | None = msgspec.field(default=None, name="received")
    policy: UnsetType = UNSET
    site: UnsetType = UNSET
    model: UnsetType = UNSET


class _Envelope(msgspec.Struct):
    schema: str
    site: str
    policy: str = ""
    model: Model | None = None


class _TimesOnly(_Envelope, kw_only=True):
    rows: list[_Times]


class _RejectedTimesOnly(_Envelope, kw_only=True):
    rows: list[_RejectedTimes]


class _Rows(_Envelope, kw_only=True):
    rows: list[msgspec.Raw]


_TIMES = msgspec.json.Decoder(_TimesOnly)
_REJECTED_TIMES = msgspec.json.Decoder(_RejectedTimesOnly)
_ROWS = msgspec.json.Decoder(_Rows)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def portions_of(lane: Lane, body: bytes, *, now_micros: int) -> list[Portion]:
    """The message, apart by hour folder, earlier ones first. Raises Unreadable when it is no message of this lane."""
    try:
        if not body.isascii():
            body.decode()  # the decoder does not look into the texts that it passes over
        found = _REJECTED_TIMES.decode(body) if lane == "rejected" else _TIMES.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The contract's decoder finds the words for what is wrong; when nothing is, a row takes a closer look.
        _complain(lane, body)
        return _apart(lane, body, now_micros)
    if found.schema != f"edgeweir.{lane}/1":
        _complain(lane, body)
    if not found.rows:
        return []
    folder = _common_folder([row.t for row in found.rows], now_micros)
    if folder is None:
        return _apart(lane, body, now_micros)
    return [Portion(_group(lane, folder, found), len(found.rows), body)]


def _complain(lane: Lane, body: bytes) -> None:
    """Raises Unreadable when the contract's own decoder does not take the body."""
    messages.decode(_KINDS[lane], body)  # type: ignore[arg-type]  # the four kinds have no base in common


def _common_folder(times: Sequence[datetime | None], now_micros: int) -> str | None:
    """The folder that all rows share, or None when they do not or it takes a closer look."""
    try:
        first, last = (_micros(bound(times)) for bound in (min, max))  # type: ignore[type-var]  # None raises TypeError
    except (TypeError, OverflowError):
        return None
    folder = hour_folder(first, now_micros=now_micros)
    return folder if folder == hour_folder(last, now_micros=now_micros) else None


def _micros(moment: datetime | None) -> int:
    if moment is None:
        raise TypeError
    # As contract.timestamps has it: a time without an offset is UTC.
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _apart(lane: Lane, body: bytes, now_micros: int) -> list[Portion]:
    try:
        message = _ROWS.decode(body)
        folders: dict[str, list[msgspec.Raw]] = {}
        for raw in message.rows:
            folders.setdefault(_folder_of_row(lane, raw, now_micros), []).append(raw)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Unreadable("bad_shape", str(error)) from None
    encode = msgspec.json.encode
    return [
        Portion(_group(lane, folder, message), len(rows), encode(msgspec.structs.replace(message, rows=rows)))
        for folder, rows in sorted(folders.items())
    ]


def _folder_of_row(lane: Lane, raw: msgspec.Raw, now_micros: int) -> str:
    row = _OBJECT.decode(raw)
    if any(key in row for key in SPLICED_KEYS):
        raise Unreadable("bad_shape", f"a row has one of the keys {', '.join(SPLICED_KEYS)}, which the store adds")
    time = row.get("received" if lane == "rejected" else "t")
    value = None if time is None else msgspec.json.decode(time)
    return hour_folder(parse_timestamp(value), now_micros=now_micros)


def _group(lane: Lane, folder: str, envelope: _Envelope) -> Group:
    model = envelope.model.digest if envelope.model else ""
    return Group(lane, folder, envelope.site, envelope.policy, model)


def lines_of(group: Group, bodies: Sequence[bytes]) -> bytes:
    """The stored lines of the rows in these bodies, which portions_of has made."""
    prefix = group.prefix()
    return b"".join(stored_lines(prefix, _ROWS.decode(body).rows) for body in bodies)
