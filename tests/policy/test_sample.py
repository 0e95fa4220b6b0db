"""The sample policy and the author's page say what the code does."""

from pathlib import Path

import pytest

from policy import CODES, compile_policy
from policy.envelope import ENVELOPE
from policy.vocabulary import CLASSES, LATER_LANE_KEYS, LATER_TRANSFORMS, OPEN_LANES, TRANSFORMS
from tests.policy.documents import released

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "modules/anomaly_router/policy.example.yaml").read_bytes()


def test_the_sample_lets_a_pumps_measurements_out_and_keeps_operator_and_serial_number() -> None:
    policy = compile_policy(SAMPLE)
    reading = (
        '{"machine":"pump-01","ts":"2026-11-23T18:00:00Z","temperature":61.10,"pressure":3.1,"vibration":0.12345,'
        '"flow":120.555,"current":7.20,"operator":"a name","serial_number":"SN-1","site_map":{"x":1}}'
    )
    measured = '"temperature":61.10,"pressure":3.1,"vibration":0.123,"flow":120.56,"current":7.20}'
    expected = '{"machine":"pump-01","ts":"2026-11-23T18:00:00Z",' + measured
    assert released(policy, reading, "readings") == expected
    assert released(policy, reading, "anomalies") == expected
    assert released(policy, reading, "insights") == "{" + measured
    assert all(lane.is_open for lane in policy.lanes.values())


LATER = [*LATER_TRANSFORMS, *(key for key in LATER_LANE_KEYS if key != "region")]


@pytest.mark.parametrize("word", [*CODES, *ENVELOPE, *CLASSES, *TRANSFORMS, *OPEN_LANES, *LATER])
def test_every_word_of_the_format_is_on_the_authors_page(word: str) -> None:
    assert f"`{word}`" in (ROOT / "docs/policy.md").read_text()


def test_every_code_is_explained_on_the_authors_page() -> None:
    page = (ROOT / "docs/policy.md").read_text()
    assert all(f"| `{code}` | {meaning} |" in page for code, meaning in CODES.items())
