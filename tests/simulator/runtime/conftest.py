import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simulator.runtime import LocalEdge, RuntimeConfig
from tests.simulator.runtime.raw_client import RawClient

# The acknowledge time-out is 1.5 s, the shortest wait before a retry 50 ms.
SCALE = 20.0


def hub_config(*, ttl_secs: int = 7200, **routes: Any) -> dict[str, Any]:
    return {"schemaVersion": "1.1", "routes": routes, "storeAndForwardConfiguration": {"timeToLiveSecs": ttl_secs}}


ROUTES = hub_config(
    leaf='FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint("/modules/m/inputs/one")',
    second='FROM /messages/modules/sender/outputs/two INTO BrokeredEndpoint("/modules/m/inputs/two")',
    up="FROM /messages/modules/sender/outputs/up INTO $upstream",
)


@pytest.fixture(autouse=True)
async def _no_open_sockets() -> AsyncIterator[None]:
    yield
    while RawClient.opened:
        writer = RawClient.opened.pop()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[LocalEdge]:
    async with LocalEdge(RuntimeConfig(state_dir=tmp_path / "state", time_scale=SCALE)) as edge:
        edge.set_edge_hub_config(ROUTES)
        for module in ("m", "sender"):
            await edge.add_module(module)
        await edge.add_device("leaf")
        yield edge
