"""Fixtures for tests that need a running edge or storage (loaded for all tests by tests/conftest.py).

azurite            one Azurite for the whole session, with an account of its own; make a container per test
local_site         call it to start a site with chosen modules; it is stopped at the end of the test

async def test_rows_arrive(local_site):
    site = await local_site(modules=["scorer"], bundle=folder, time_scale=20)
    await site.wait_until_connected()
    async with Device(await site.add_device("pump-01")) as device: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:  # what most tests do not need takes a second to load
    from simulator.azurite import Azurite
    from simulator.local_site import LocalSite

_START_SECS = 120.0


class StartSite(Protocol):
    async def __call__(self, **config: Any) -> LocalSite:
        """Arguments are those of SiteConfig; `state` is a folder of this test unless given."""


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Runs in a loop and thread of its own, so that it outlives the loops of the tests."""
    from simulator.azurite import run_azurite
    from simulator.project import find_root

    running = run_azurite(find_root(Path(__file__).parent), tmp_path_factory.mktemp("azurite"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="azurite", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(_START_SECS)
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(_START_SECS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
async def local_site(tmp_path: Path) -> AsyncIterator[StartSite]:
    from simulator.local_site import SiteConfig, run_site
    from simulator.project import find_root

    async with contextlib.AsyncExitStack() as stack:

        async def start(**config: Any) -> LocalSite:
            settings = {"root": find_root(Path(__file__).parent), "state": tmp_path / "edge", **config}
            return await stack.enter_async_context(run_site(SiteConfig(**settings)))

        yield start
