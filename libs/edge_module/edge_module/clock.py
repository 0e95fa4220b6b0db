"""Time, passed in. `now_micros` is the wall clock (it may jump), `monotonic` never goes back and restarts at boot."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_micros(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds since boot: equal in every process of one boot, and meaningless in the next."""
        ...

    def scaled(self, secs: float) -> float:
        """A wait of the module's own choosing, divided by EDGEWEIR_TIME_SCALE."""
        ...


class SystemClock:
    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    def now_micros(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def scaled(self, secs: float) -> float:
        return secs / self._scale
