"""A bad minute on every line at once, in a few seconds: slow, cut into pieces, cut short, reset, away, answers lost."""

import asyncio
from pathlib import Path

import pytest

from simulator.fault_proxy import (
    Add,
    Down,
    Latency,
    LimitData,
    Lose,
    LoseResponse,
    Remove,
    ResetPeer,
    Slicer,
    Step,
    Timeout,
    run_schedule,
)
from simulator.links import DEVICES, STORAGE
from simulator.machines import machine_names
from tests.e2e.pipeline import PUMPS, Feeder, pipeline, read_back, settle, verdict_of
from tests.waiting import until

TIME_SCALE = 30.0
SLOW: tuple[Step, ...] = (
    Add(0, Latency(latency=40, jitter=40, name="slow")),
    Add(0, Slicer(average_size=300, size_variation=100, delay=50, stream="upstream", name="pieces")),
    Remove(3.2, "slow"),
    Remove(3.2, "pieces"),
)
LOSSY: tuple[Step, ...] = (
    *SLOW,
    Add(0.3, LimitData(bytes=6_000, stream="upstream", name="short")),
    Remove(1.0, "short"),
    Add(1.0, ResetPeer(timeout=50, name="reset")),
    Remove(1.5, "reset"),
    Add(1.7, Down()),
    Remove(2.2, "down"),
    Add(2.4, Timeout(timeout=0, name="hang")),
    Remove(3.0, "hang"),
)


def schedule_of(link: str) -> tuple[Step, ...]:
    """The device SDK waits ten seconds until it connects again, so devices are not cut off here."""
    if link == DEVICES:
        return (Add(0, Latency(latency=60, jitter=60)), Remove(3, "latency_downstream"))
    if link == STORAGE:
        return (*LOSSY, Lose(0, LoseResponse(matches=lambda request: request.method == "PUT")))
    return LOSSY


# The device SDK leaves the socket behind when a connection of it fails.
@pytest.mark.filterwarnings("ignore:.*SSLSocket.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
async def test_a_lossy_minute_on_all_links_at_once_leaves_the_rows_intact(tmp_path: Path, bundle: Path) -> None:
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE, fault_proxies=True) as site:
        feeder = Feeder(site)
        async with asyncio.TaskGroup() as group:
            group.create_task(feeder.run())
            await until(lambda: all(feeder.ledger.promised(name) for name in machine_names(PUMPS)), secs=30)
            async with asyncio.TaskGroup() as faults:
                for name, proxy in site.links.items():
                    faults.create_task(run_schedule(proxy, schedule_of(name)))
            feeder.stop()
        accepted = {name: proxy.accepted for name, proxy in site.links.items()}
        await settle(site)
        storage = await read_back(site)
    verdict = verdict_of(bundle, feeder.ledger, storage)
    assert verdict.sent > 100
    assert verdict.intact, "\n".join(verdict.problems)
    # Each module's connection was cut while rows went through it.
    assert min(accepted[module] for module in site.modules) >= 2, accepted
