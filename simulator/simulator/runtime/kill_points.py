"""Named steps of the runtime at which a test can kill it; the same words and syntax as the modules have.

EDGEWEIR_KILL_AT="after_commit:3" makes the process send itself SIGKILL at its third pass of `after_commit`. Without
that variable a step is one call of a function that does nothing. The simulator imports no module's library, so this
is a file of its own; a test holds the syntax of both together.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "EDGEWEIR_KILL_AT"

STEPS: Final[tuple[str, ...]] = (
    "connection_accepted",  # CONNACK is written; the identity is not bound, the older connection still open
    "connection_bound",  # the older connection has been closed
    "session_saved",  # a subscription is in the open transaction
    "session_granted",  # SUBACK is with the operating system
    "publish_received",  # a telemetry PUBLISH has been read
    "message_queued",  # it is in the open transaction, in all its queues
    "before_commit",
    "after_commit",  # the operating system has it; nobody has been told
    "before_puback",
    "after_puback",  # PUBACK is with the operating system
    "before_delivery",  # a message has been taken for an input
    "after_delivery",  # the PUBLISH to the module is with the operating system
    "delivery_acknowledged",  # the module's PUBACK has been read; the message is still queued
    "delivery_removed",  # its removal is in the open transaction
    "twin_written",  # a reported patch is in the open transaction
    "twin_answered",  # the 204 is with the operating system
    "before_checkpoint",
    "after_checkpoint",
)

Reach = Callable[[str], None]


def parse_kill_at(text: str) -> tuple[str, int]:
    """Raises ValueError with what is expected."""
    step, _, passes = text.partition(":")
    if not step or not (passes or "1").isdigit() or int(passes or "1") < 1:
        raise ValueError(f"{VARIABLE} is {text!r}; expected STEP or STEP:PASSES, for example after_commit:3")
    return step, int(passes or "1")


def make_reach(kill_at: str | None) -> Reach:
    """What the runtime calls at each step. Raises ValueError as `parse_kill_at`."""
    if not kill_at:
        return pass_by
    step, left = parse_kill_at(kill_at)

    def reach(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.write(2, f"kill point {name}\n".encode())  # so that a test knows that it was this and no crash
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def pass_by(name: str) -> None:
    """The step of a runtime that nobody wants to kill."""
