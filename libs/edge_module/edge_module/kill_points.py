"""Named steps of the data path at which a test can kill the process.

EDGEWEIR_KILL_AT="after_commit:3" makes the process send itself SIGKILL at its third pass of `after_commit`. Without
that variable a step is one call of a function that does nothing. Modules may name steps of their own.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

STEPS: Final[tuple[str, ...]] = (
    "received",  # an input packet has been decoded
    "seen_checked",  # its identity is new
    "handled",  # the module has done its work, inside the transaction
    "before_commit",  # of an input's transaction, not of a tick's
    "after_commit",
    "before_ack",
    "after_ack",  # the PUBACK is with the operating system
    "before_publish",
    "after_publish",  # the PUBLISH is with the operating system
    "published_acked",  # edgeHub's PUBACK came; the mark is only in memory
    "before_prune",  # outbox rows kept long enough are about to be deleted
    "after_prune",
    "tick_before_commit",
)
# Of what a module's own tasks write, which not every module does.
EFFECT_STEPS: Final = ("effect_before_commit", "effect_after_commit")

Reach = Callable[[str], None]


def parse_kill_at(text: str) -> tuple[str, int]:
    """Raises ValueError with what is expected."""
    step, _, passes = text.partition(":")
    if not step or not (passes or "1").isdigit() or int(passes or "1") < 1:
        raise ValueError(f"EDGEWEIR_KILL_AT is {text!r}; expected STEP or STEP:PASSES, for example after_commit:3")
    return step, int(passes or "1")


def make_reach(kill_at: str | None) -> Reach:
    """What the data path calls at each step."""
    if not kill_at:
        return _pass_by
    step, left = parse_kill_at(kill_at)

    def reach(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.write(2, f"kill point {name}\n".encode())  # so that a test knows that it was this and no crash
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def _pass_by(name: str) -> None:
    pass
