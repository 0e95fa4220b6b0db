"""Logs in the runtime's own format, one line each, so that its log filters work:

    <6> 2026-11-23 18:00:00.123 +00:00 [INF] connected gateway=edge-1 attempt=1

Fields come as `extra={"fields": {...}}`. No payloads, no secrets: an exception from a module's code is logged with its
type and place, not its text (`extra=PRIVATE`). Every record is one line, with ⏎ for newlines.
"""

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

# syslog severity and the runtime's abbreviation, for the highest threshold that the level reaches
_LEVELS = (
    (logging.CRITICAL, 2, "FTL"),
    (logging.ERROR, 3, "ERR"),
    (logging.WARNING, 4, "WRN"),
    (logging.INFO, 6, "INF"),
    (logging.NOTSET, 7, "DBG"),
)
_NAMES = {
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "information": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
}


# `extra` of a record about a failure inside a module's code: its exception is logged without its text.
PRIVATE: dict[str, object] = {"private": True}


class RuntimeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        severity, name = next((number, text) for level, number, text in _LEVELS if record.levelno >= level)
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} +00:00"
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line = " ".join([record.getMessage(), *(f"{key}={_value(value)}" for key, value in fields.items())])
        if record.exc_info and record.exc_info[0] is not None:
            is_private = getattr(record, "private", False)
            line += " exception=" + (_where(record.exc_info) if is_private else self.formatException(record.exc_info))
        return f"<{severity}> {stamp} [{name}] " + line.replace("\n", "⏎")


def _where(error: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]) -> str:
    """Type and place alone: an exception's text may quote a payload."""
    frames = traceback.extract_tb(error[2])
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in reversed(frames))
    return f"{error[0].__name__ if error[0] else ''} at {places}"


def _value(value: object) -> str:
    text = str(value)
    return text if text and " " not in text and '"' not in text else '"' + text.replace('"', "'") + '"'


def set_up_logging(level: str) -> logging.Logger:
    """Log to stdout at the level that edgeAgent names (RuntimeLogLevel). Returns the modules' logger."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(RuntimeFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log = logging.getLogger("edgeweir")
    log.setLevel(_NAMES.get(level.lower(), logging.INFO))
    return log
