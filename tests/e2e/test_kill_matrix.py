"""Each module is killed between any two steps of its cycle; afterwards everything is stored once, with equal scores.

One pipeline runs while all three modules die again and again, each time at the next of their steps. Rows keep coming,
so every step is reached. edgeHub's time-outs are divided by TIME_SCALE; their order is not.
"""

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_module.kill_points import STEPS
from simulator.local_site import LocalSite
from tests.e2e.pipeline import Feeder, pipeline, read_back, settle, verdict_of
from uploader.sender import STEPS as UPLOADER_STEPS

TIME_SCALE = 60.0
_STEP_SECS = 45.0
_SAYS = "kill point "
_PUBLISHING = {"before_publish", "after_publish", "published_acked", "before_prune", "after_prune"}
STEPS_OF = {
    "scorer": STEPS,
    "anomaly_router": STEPS,
    "uploader": (*(step for step in STEPS if step not in _PUBLISHING), *UPLOADER_STEPS),
}


async def die_at_every_step(site: LocalSite, module: str, rng: random.Random) -> list[str]:
    """Restart the module once for each step, told to kill itself there. Returns the steps in that order."""
    steps = list(STEPS_OF[module])
    rng.shuffle(steps)
    environments = [{"EDGEWEIR_KILL_AT": f"{step}:{rng.randint(1, 3)}"} for step in steps]
    # The process that runs now has no kill point; ending it begins the series.
    site.module_env[module] = environments[0]
    assert site.supervisor.send_signal(module, signal.SIGKILL)
    start = site.supervisor.starts(module)
    for step, following in zip(steps, [*environments[1:], {}], strict=True):
        start += 1
        await until(lambda: site.supervisor.starts(module) >= start, site, module, step)  # noqa: B023 - awaited here
        site.module_env[module] = following
        await until(lambda: has_ended(site, module, start), site, module, step)  # noqa: B023 - awaited here
        assert site.supervisor.exit_code(module) == -signal.SIGKILL, f"{step}: {site.last_line(module)}"
    return steps


def steps_of_log(site: LocalSite, module: str) -> list[str]:
    """The steps at which the module says it killed itself, in order."""
    lines = (site.folder.logs / f"{module}.log").read_text().splitlines()
    return [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]


def has_ended(site: LocalSite, module: str, start: int) -> bool:
    return site.supervisor.starts(module) > start or site.supervisor.pid(module) is None


async def until(condition: Callable[[], bool], site: LocalSite, module: str, step: str) -> None:
    try:
        async with asyncio.timeout(_STEP_SECS):
            while not condition():  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{module} did not die at {step}; {site.last_line(module)}")


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_each_module_killed_between_any_two_steps_stores_everything_once(tmp_path: Path, bundle: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails, to run the same order of steps again
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE) as site:
        feeder = Feeder(site)
        async with asyncio.TaskGroup() as group:
            group.create_task(feeder.run())
            wanted = await asyncio.gather(
                *(die_at_every_step(site, module, random.Random(f"{seed}/{module}")) for module in STEPS_OF)
            )
            feeder.stop()
        await site.wait_until_connected()
        await settle(site)
        storage = await read_back(site)
        died = [steps_of_log(site, module) for module in STEPS_OF]
    assert died == wanted
    verdict = verdict_of(bundle, feeder.sent, storage)
    assert verdict.sent > 500
    assert verdict.intact, "\n".join(verdict.problems)
