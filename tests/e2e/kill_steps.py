"""At which steps a part can be told to kill itself, and how a running site is made to do it."""

import contextlib
import signal
from collections.abc import Sequence

from edge_module.kill_points import EFFECT_STEPS, STEPS
from simulator.local_site import EDGE_HUB, LocalSite
from simulator.runtime.kill_points import STEPS as RUNTIME_STEPS
from tests.waiting import until
from uploader.sender import STEPS as UPLOADER_STEPS

_SAYS = "kill point "
_PUBLISHING = {"before_publish", "after_publish", "published_acked", "before_prune", "after_prune"}
STEPS_OF = {
    "scorer": STEPS,
    "anomaly_router": STEPS,
    "uploader": (*(step for step in STEPS if step not in _PUBLISHING), *EFFECT_STEPS, *UPLOADER_STEPS),
    EDGE_HUB: RUNTIME_STEPS,
}
"""Those that a part passes: the uploader publishes nothing."""


class NotReached(Exception):
    """The part lived on: it did not come to the step, or ended in another way."""


async def die_at(site: LocalSite, part: str, kill_points: Sequence[str], *, secs: float) -> None:
    """Restart the part once for each of `STEP:PASSES`, told to kill itself there, and once more without.

    Returns when it is about to start again after the last of them. Raises NotReached when it does not die within
    `secs` of being told.
    """
    before = site.module_env.get(part, {})
    start = site.supervisor.starts(part)
    try:
        site.module_env[part] = {**before, "EDGEWEIR_KILL_AT": kill_points[0]}
        # The process that runs now has no kill point; ending it begins the series.
        site.supervisor.send_signal(part, signal.SIGKILL)
        for kill_point, following in zip(kill_points, [*kill_points[1:], None], strict=True):
            start += 1
            try:
                await until(lambda: site.supervisor.starts(part) >= start, secs=secs)  # noqa: B023 - awaited here
                site.module_env[part] = before if following is None else {**before, "EDGEWEIR_KILL_AT": following}
                await until(lambda: has_ended(site, part, start), secs=secs)  # noqa: B023 - awaited here
            except TimeoutError:
                raise NotReached(f"{part} did not die at {kill_point}; {site.last_line(part)}") from None
            if site.supervisor.exit_code(part) != -signal.SIGKILL:
                raise NotReached(f"{part} ended at {kill_point}, but not by it; {site.last_line(part)}")
    finally:
        site.module_env[part] = before


def has_ended(site: LocalSite, part: str, start: int) -> bool:
    """The process of this start."""
    return site.supervisor.starts(part) > start or site.supervisor.pid(part) is None


def steps_of_log(site: LocalSite, part: str) -> list[str]:
    """The steps at which the part says it killed itself, in order."""
    with contextlib.suppress(FileNotFoundError):
        lines = (site.folder.logs / f"{part}.log").read_text().splitlines()
        return [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]
    return []
