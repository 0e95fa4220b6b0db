"""Logs in the runtime's own format, one line each, so that its log filters work:

    <6> 2026-11-23 18:00:00.123 +00:00 [INF] connected gateway=edge-1 attempt=1

Fields come as `extra={"fields": {...}}`. No payloads, no secrets. A traceback stays on its line, with ⏎ for newlines.
"""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

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


class RuntimeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        severity, name = next((number, text) for level, number, text in _LEVELS if record.levelno >= level)
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} +00:00"
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line = " ".join([record.getMessage(), *(f"{key}={_value(value)}" for key, value in fields.items())])
        if record.exc_info:
            line += " exception=" + self.formatException(record.exc_info)
        return f"<{severity}> {stamp} [{name}] " + line.replace("\n", "⏎")


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
