"""The uploader as a running module: a bench that feeds it, and its own tasks beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from edge_module.testing import Bench
from simulator.azurite import Azurite
from tests import waiting
from uploader.module import Uploader
from uploader.settings import Settings

Desired = dict[str, object]
until = partial(waiting.until, secs=30.0)


def desired(
    container: str, *, lanes: tuple[str, ...] = ("anomalies", "insights", "readings"), **more: object
) -> Desired:
    """Settings with one Azure destination whose connection string is in `secrets/storage`; quick for tests."""
    storage = {
        "kind": "azure_blob",
        "name": "storage",
        "connection_string_file": "secrets/storage",
        "container": container,
        "lanes": ["anomalies", "insights", "readings"],
    }
    quick = {"batch_max_age_secs": 0.5, "retry_max_secs": 1, "attempt_base_secs": 5}
    return {"destinations": [storage], **quick, **more}


def mount_secret(folder: Path, text: str) -> None:
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets/storage").write_text(text)


def make_bench(folder: Path, azurite: Azurite, settings: Desired, *, port: int | None = None) -> Bench[Settings]:
    mount_secret(folder, azurite.account.connection_string(port or azurite.port))
    return Bench(Uploader, folder, settings=settings, config_dir=folder)


@asynccontextmanager
async def working(bench: Bench[Settings], *, look_secs: float = 0.05) -> AsyncIterator[None]:
    """The module's tasks run, and its clock goes on by a second with each look."""

    async def go_on() -> None:
        while True:
            bench.tick(1.0)
            await asyncio.sleep(look_secs)

    tasks = [asyncio.create_task(bench.module.background()), asyncio.create_task(go_on())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def is_drained(bench: Bench[Settings]) -> bool:
    return not bench.module.status()["backlog"]


async def drain(bench: Bench[Settings], *, secs: float = 30.0) -> None:
    async with working(bench):
        await until(lambda: is_drained(bench), secs=secs)


def feed(bench: Bench[Settings], body: bytes, lane: str = "readings", *, message_id: str | None = None) -> str:
    """Give it one message of the router; how that ended."""
    result = bench.feed(body, input=lane, device="edge", module="anomaly_router", message_id=message_id)
    return result.how
