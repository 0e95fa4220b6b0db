from secrets import token_hex

import pytest


@pytest.fixture
def container_name() -> str:
    return f"edge-{token_hex(8)}"
