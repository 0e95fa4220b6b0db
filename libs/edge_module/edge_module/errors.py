"""Who must act when a message, a setting or a method does not go through.

Poison        the message can never succeed: it goes to the rejected lane and is acknowledged
Hold          not now: the message stays unacknowledged and is tried again
Refused       the desired properties are not taken; the settings before them stay
MethodError   a direct method answers with this status
TooLarge      a body that must not be emitted (a fault of the module's own code)
"""


class Poison(Exception):
    """Raised by `handle`: everything it did is undone, the original bytes go to the rejected lane under `reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Hold(Exception):
    """Raised by `handle`: everything it did is undone, nothing is acknowledged, and the same message is tried again
    after a pause, when the settings change, or when the module calls `context.retry_held()`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Refused(Exception):
    """Raised by `configure`: `path` is the offending key (`$.bundle`), `reason` says what is wrong with it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class MethodError(Exception):
    """Raised by a direct method; the caller gets the status and `{"error": message}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class TooLarge(ValueError):
    """A body or a set of properties that edgeHub would drop or close the connection over."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what} has {size} bytes, the limit is {limit}")
        self.size = size
        self.limit = limit
