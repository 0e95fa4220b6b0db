"""Why a module is not well: reason codes with a detail, set and cleared by whoever notices.

A code stays until the same noticer clears it. `ok` means that no code is set.
"""

import threading
from collections.abc import Callable


class Health:
    """Thread-safe. `changed` is called (on the setter's thread) when the set of reasons changes."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()
        self._changed = changed

    def set(self, code: str, detail: str = "") -> None:
        with self._lock:
            if self._reasons.get(code) == detail:
                return
            self._reasons[code] = detail
        self._changed()

    def clear(self, code: str) -> None:
        with self._lock:
            if self._reasons.pop(code, None) is None:
                return
        self._changed()

    def reasons(self) -> dict[str, str]:
        with self._lock:
            return dict(self._reasons)
