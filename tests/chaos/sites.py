"""The sites that cells run on: the whole pipeline as processes, a fault proxy on every link, hurried time-outs."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

from simulator.local_site import LocalSite, SiteConfig, run_site
from tests.chaos.builds import Builds, with_builds
from tests.chaos.forgetful_edge import edge_environment
from tests.e2e.pipeline import POLICY, ROOT

# edgeHub's 30 s until it sends another copy become one second; its 10 s before a restart a third of one.
TIME_SCALE: Final = 30.0
_COOL_OFF_LIMIT_SECS: Final = 20.0
_DESIRED: Final[dict[str, dict[str, float]]] = {
    "uploader": {"batch_max_age_secs": 1.0, "retry_max_secs": 1.0, "attempt_base_secs": 3.0},
    # Windows close all the time, by their rows' times. One that closed by idle time would make the rows behind it
    # late, and those that come after the last window of a series are not counted until there is another.
    "anomaly_router": {"insight_window_secs": 4, "insight_lateness_secs": 4.0, "insight_idle_secs": 86_400.0},
}
# What makes all that is open close now, when nothing is sent any more.
CLOSE_ALL: Final[dict[str, float]] = {"insight_idle_secs": 1.0, "episode_idle_secs": 1.0}


@contextlib.asynccontextmanager
async def run_chaos_site(
    state: Path, bundle: Path, *, environment: Mapping[str, Mapping[str, str]] | None = None
) -> AsyncIterator[LocalSite]:
    """All modules connected. `environment` is that of modules and of edgeHub at every start."""
    config = SiteConfig(
        root=ROOT,
        state=state,
        bundle=bundle,
        policy=POLICY,
        desired=_DESIRED,
        time_scale=TIME_SCALE,
        cool_off_limit_secs=_COOL_OFF_LIMIT_SECS,
        fault_proxies=True,
        environment=environment or {},
    )
    async with run_site(config) as site:
        await site.wait_until_connected()
        yield site


@contextlib.asynccontextmanager
async def _plain(folder: Path, bundle: Path, builds: Builds) -> AsyncIterator[LocalSite]:
    async with run_chaos_site(folder / "edge", bundle, environment=with_builds({}, builds)) as site:
        yield site


@contextlib.asynccontextmanager
async def _forgetful(folder: Path, bundle: Path, builds: Builds) -> AsyncIterator[LocalSite]:
    """Every disk forgets what was not synced; a cut draws its own seeds."""
    state = folder / "edge"
    environment = with_builds(edge_environment(state, seed=1), builds)
    async with run_chaos_site(state, bundle, environment=environment) as site:
        yield site


OpenSite = Callable[[Path, Path, Builds], contextlib.AbstractAsyncContextManager[LocalSite]]

SITES: Final[dict[str, OpenSite]] = {"plain": _plain, "forgetful": _forgetful}
"""By the kind that a cell asks for: called with a folder, the model bundle, and the parts that run a build."""
