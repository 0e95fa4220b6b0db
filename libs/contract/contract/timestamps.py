"""Times as they travel: RFC 3339 in UTC with microseconds only where there are any.

Devices send many forms. A number is seconds since 1970, or milliseconds, microseconds or nanoseconds when it is too
large to be seconds of this age; a text is ISO 8601, and one without an offset is taken as UTC.
"""

import math
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 1e11 s is the year 5138 and 1e11 ms is March 1973, so the magnitudes cannot be confused for a machine's telemetry.
_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
_MIN_MICROS = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))
_MAX_MICROS = int((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))


def parse_timestamp(value: object) -> int | None:
    """Microseconds since 1970-01-01T00:00:00Z, or None when the value is no time."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _parse_number(value)
    if isinstance(value, str):
        return _parse_text(value)
    return None


def _parse_number(value: float) -> int | None:
    if not math.isfinite(value):
        return None
    for limit, micros in _UNITS:
        if abs(value) < limit:
            result = round(value * micros)
            break
    else:
        result = round(value / 1000)
    return result if _MIN_MICROS <= result <= _MAX_MICROS else None


def _parse_text(value: str) -> int | None:
    try:
        parsed = datetime.fromisoformat(value.strip())
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        micros = (parsed - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return micros if _MIN_MICROS <= micros <= _MAX_MICROS else None


def format_timestamp(micros: int) -> str:
    """`2026-11-23T18:00:00Z`; with six decimals when the time is not a whole second."""
    moment = _EPOCH + timedelta(microseconds=micros)
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds" if micros % 1_000_000 else "seconds")
    return text + "Z"
