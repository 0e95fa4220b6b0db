"""Capped exponential back-off with full jitter, so that many modules do not come back in step."""

import random
from collections.abc import Callable


class Backoff:
    def __init__(
        self, first_secs: float, cap_secs: float, *, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._first_secs = first_secs
        self._cap_secs = cap_secs
        self._draw = draw
        self._failures = 0

    def next_secs(self) -> float:
        """How long to wait now: between half of the step and the whole step, which doubles up to the cap."""
        step = min(self._cap_secs, self._first_secs * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._draw(step / 2, step)

    def reset(self) -> None:
        self._failures = 0
