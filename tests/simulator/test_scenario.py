import json
from pathlib import Path

import pytest

from simulator import scenario
from simulator.errors import UserError
from simulator.reference import Reference
from simulator.replay import read_replay
from tests.simulator.models import spread_bundle

START = 1_795_000_000_000_000


def test_the_same_seed_is_the_same_scenario() -> None:
    one = scenario.pumps(seed=3, count=4, send_secs=50, start_micros=START)
    assert one == scenario.pumps(seed=3, count=4, send_secs=50, start_micros=START)
    assert one != scenario.pumps(seed=4, count=4, send_secs=50, start_micros=START)


def test_every_pump_sends_all_its_rows_within_the_time() -> None:
    scene = scenario.pumps(seed=3, count=12, send_secs=100, start_micros=START)
    assert scene.rows == 12 * scenario.ROWS_PER_PUMP + 2
    for delivery in scene.deliveries:
        distinct = len(set(delivery.messages))
        assert distinct * delivery.pause_secs == pytest.approx(100, rel=0.05)
    assert {fault.machine for fault in scene.faults} == {f"pump-{n:02}" for n in range(1, 13)}


def test_a_short_time_means_larger_messages_not_fewer_rows() -> None:
    short = scenario.pumps(seed=3, count=2, send_secs=10, start_micros=START)
    assert short.rows == 2 * scenario.ROWS_PER_PUMP + 2
    assert max(len(message.texts) for message in short.deliveries[0].messages) == 50


def test_some_messages_are_sent_twice_in_every_scenario() -> None:
    scene = scenario.pumps(seed=7, count=12, send_secs=100, start_micros=START)
    repeats = sum(len(one.messages) - len(set(one.messages)) for one in scene.deliveries)
    assert 5 <= repeats <= 60


def test_training_data_are_other_days_of_the_same_pumps() -> None:
    lines = list(scenario.training_lines(seed=3, count=2, start_micros=START))
    assert len(lines) == 2 * scenario.TRAINING_ROWS_PER_PUMP
    first = json.loads(lines[0])
    assert first["machine"] == "pump-01"
    assert first["ts"] < "2026-11-18"
    sent = {
        text
        for one in scenario.pumps(seed=3, count=2, send_secs=9, start_micros=START).deliveries
        for m in one.messages
        for text in m.texts
    }
    assert not sent & set(lines)


def test_poison_is_rejected_but_for_its_good_rows() -> None:
    scene = scenario.pumps(seed=3, count=1, send_secs=10, start_micros=START)
    reference = Reference(spread_bundle(), "fields: []")
    for message in scene.deliveries[-1].messages:
        reference.take(scenario.POISON_DEVICE, message)
    assert len(reference.expected.rejected) == 7
    assert len(reference.expected.rows) == 2


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "a b(1).csv"
    path.write_text("timestamp,va/lue\n" + "".join(f"2014-01-01 00:{n % 60:02}:00,{n}.50\n" for n in range(1000)))
    return path


def test_a_replay_is_one_device_that_sends_every_row_in_order(csv: Path) -> None:
    scene = scenario.replay(read_replay(csv), send_secs=50)
    delivery = scene.deliveries[0]
    assert delivery.device == "a_b_1_"
    texts = [text for message in dict.fromkeys(delivery.messages) for text in message.texts]
    assert [json.loads(text)["va/lue"] for text in texts] == [n + 0.5 for n in range(1000)]
    assert len(set(delivery.messages)) * delivery.pause_secs == pytest.approx(50)
    assert len(scene.times) == 1000


def test_the_policy_of_a_replay_keeps_its_own_columns(csv: Path) -> None:
    scene = scenario.replay(read_replay(csv), send_secs=50)
    assert scene.policy is not None
    reference = Reference(spread_bundle(), scene.policy)
    reference.take("d", scene.deliveries[0].messages[0])
    first = next(iter(reference.expected.rows.values()))
    assert first.reading == {"timestamp": "2014-01-01 00:00:00", "va/lue": "0.50"}


def test_a_replay_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("timestamp,value\n")
    with pytest.raises(UserError, match="no column holds numbers"):
        read_replay(path)
