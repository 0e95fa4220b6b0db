import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import ScriptedHub, make_pki, running_hub


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def hub(pki: tuple[Path, Path]) -> AsyncIterator[ScriptedHub]:
    async with running_hub(*pki) as hub:
        yield hub
        assert hub.acks_of_nothing == 0


@pytest.fixture
async def echo(hub: ScriptedHub, pki: tuple[Path, Path], tmp_path: Path) -> AsyncIterator[EchoProcess]:
    """Not started yet."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    process = EchoProcess(state_dir, hub_port=hub.port, ca_file=pki[0])
    yield process
    await process.kill()


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
