"""Each module is killed between any two steps of its cycle; afterwards everything is stored once, with equal scores.

One pipeline runs while all three modules die again and again, each time at the next of their steps. Rows keep coming,
so every step is reached. edgeHub's time-outs are divided by TIME_SCALE; their order is not.
"""

import asyncio
import random
from pathlib import Path

import pytest

from simulator.local_site import LocalSite
from tests.e2e.kill_steps import STEPS_OF, NotReached, die_at, steps_of_log
from tests.e2e.pipeline import Feeder, pipeline, read_back, settle, verdict_of

TIME_SCALE = 60.0
_STEP_SECS = 45.0
# So that rows do not gather while a module that has died a dozen times waits for its next start.
_COOL_OFF_LIMIT_SECS = 20.0


async def die_at_every_step(site: LocalSite, module: str, rng: random.Random) -> list[str]:
    """Restart the module once for each step, told to kill itself there. Returns the steps in that order."""
    steps = list(STEPS_OF[module])
    rng.shuffle(steps)
    try:
        await die_at(site, module, [f"{step}:{rng.randint(1, 3)}" for step in steps], secs=_STEP_SECS)
    except NotReached as error:
        pytest.fail(str(error))
    return steps


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_each_module_killed_between_any_two_steps_stores_everything_once(tmp_path: Path, bundle: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails, to run the same order of steps again
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE, cool_off_limit_secs=_COOL_OFF_LIMIT_SECS) as site:
        feeder = Feeder(site)
        async with asyncio.TaskGroup() as group:
            group.create_task(feeder.run())
            wanted = await asyncio.gather(
                *(die_at_every_step(site, module, random.Random(f"{seed}/{module}")) for module in site.modules)
            )
            feeder.stop()
        await site.wait_until_connected()
        await settle(site)
        storage = await read_back(site)
        died = [steps_of_log(site, module) for module in site.modules]
    assert died == wanted
    verdict = verdict_of(bundle, feeder.ledger, storage)
    assert verdict.sent > 500
    assert verdict.intact, "\n".join(verdict.problems)
