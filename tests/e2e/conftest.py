import asyncio
from pathlib import Path

import pytest

from tests.e2e.pipeline import train


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(train(tmp_path_factory.mktemp("bundle")))
