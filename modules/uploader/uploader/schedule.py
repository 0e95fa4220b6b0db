"""When to try again: exponential, jittered, capped. Pure."""

from collections.abc import Callable

FIRST_SECS = 1.0


def pause_secs(failures: int, *, cap_secs: float, random: Callable[[], float]) -> float:
    """After this many failures in a row (from 1): between half and all of 1, 2, 4 … seconds, never above the cap.

    `random` gives a number in [0, 1); without the jitter, modules that failed together would come back together.
    """
    whole = min(cap_secs, FIRST_SECS * 2.0 ** min(failures - 1, 30))
    return whole * (0.5 + random() / 2)


def attempt_secs(size: int, *, base_secs: float, slowest_bytes_per_sec: int) -> float:
    """How long the body of one attempt may take: the SDK's time-out bounds the sending of the whole of it."""
    return base_secs + size / slowest_bytes_per_sec
