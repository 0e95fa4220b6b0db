"""edgeHub's waits, and the one divisor that tests put under all of them."""

import random
from dataclasses import dataclass

ACK_TIMEOUT_SECS = 30.0
RETRY_MIN_SECS = 1.0
RETRY_MAX_SECS = 60.0
TOKEN_CHECK_INTERVAL_SECS = 300.0
EXPIRED_CLEANUP_INTERVAL_SECS = 1800.0
TWIN_SYNC_INTERVAL_SECS = 120.0
METHOD_AFTER_SUBSCRIPTION_SECS = 3.0
KEEP_ALIVE_LIMIT_SECS = 600.0
CONNECT_WAIT_SECS = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Divides a wait of the runtime's own. Keep-alive and the wait for CONNECT belong to the client: never divided."""

    time_scale: float = 1.0

    def __call__(self, secs: float) -> float:
        return secs / self.time_scale


def retry_delay_secs(attempt: int, jitter: float | None = None) -> float:
    """min(1 + (2^attempt - 1) * jitter, 60) with jitter in 0.8..1.2; the first attempt is 0."""
    factor = random.uniform(0.8, 1.2) if jitter is None else jitter  # jitter, not a secret
    return min(RETRY_MIN_SECS + (2.0 ** min(attempt, 16) - 1) * factor, RETRY_MAX_SECS)


def keep_alive_limit_secs(keep_alive_secs: int) -> float:
    """How long a silent client is kept: 1.5 times its value; 0 or more than ten minutes counts as ten minutes."""
    if keep_alive_secs == 0 or keep_alive_secs * 1.5 > KEEP_ALIVE_LIMIT_SECS:
        return KEEP_ALIVE_LIMIT_SECS
    return keep_alive_secs * 1.5
