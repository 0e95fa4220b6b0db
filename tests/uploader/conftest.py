from collections.abc import Iterator
from secrets import token_hex

import pytest

from tests.uploader.azurite import Azurite, run_azurite


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One real Azurite for the session; each test takes a container of its own."""
    with run_azurite() as running:
        yield running


@pytest.fixture
def container_name() -> str:
    return f"edge-{token_hex(8)}"
