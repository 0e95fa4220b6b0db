"""Trainer and scorer together: the module gives the scores that numpy gives, over messages, machines and restarts."""

import json
from pathlib import Path

import numpy as np
import pytest

from contract.messages import ScoredRow
from tests.scorer.bench import make_bench, scored
from tests.trainer.pumps import COLUMNS, SENSORS, START_MICROS, fleet
from trainer.evaluate import score_series
from trainer.training import Config, Trained, train


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(fleet(3, 800), COLUMNS, Config(name="pump"))


def run(folder: Path, trained: Trained, *, rows_per_message: int, restart_every: int) -> dict[str, list[ScoredRow]]:
    pumps = fleet(3, 120, seed=11)
    pumps[1].values[60:90, 2] = pumps[1].values[59, 2]
    readings = [
        {"timestamp": START_MICROS / 1e6 + row, "machine": pump.name}
        | dict(zip(SENSORS, pump.values[row].tolist(), strict=True))
        for row in range(120)
        for pump in pumps
    ]
    bench = make_bench(folder, dict(trained.files))
    by_machine: dict[str, list[ScoredRow]] = {}
    for number, start in enumerate(range(0, len(readings), rows_per_message)):
        body = json.dumps(readings[start : start + rows_per_message]).encode()
        for row in scored(bench.feed(body, message_id=str(number))):
            by_machine.setdefault(row.series, []).append(row)
        if number % restart_every == 0:
            bench.restart()
    return by_machine


@pytest.mark.parametrize(("rows_per_message", "restart_every"), [(1, 7), (10, 1), (360, 1)])
def test_scores_equal_those_of_numpy(
    tmp_path: Path, trained: Trained, rows_per_message: int, restart_every: int
) -> None:
    by_machine = run(tmp_path, trained, rows_per_message=rows_per_message, restart_every=restart_every)
    pumps = fleet(3, 120, seed=11)
    pumps[1].values[60:90, 2] = pumps[1].values[59, 2]
    for pump in pumps:
        _, expected = score_series(trained.detector, pump, 10)
        rows = by_machine[pump.name]
        assert [row.no_score for row in rows[:15]] == ["warm_up"] * 15
        found = np.array([row.score for row in rows[15:]], dtype=np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_stuck_sensor_is_found_and_named(tmp_path: Path, trained: Trained) -> None:
    rows = run(tmp_path, trained, rows_per_message=30, restart_every=100)["pump-1"]
    alarms = [row for row in rows if row.anomaly]
    assert alarms
    assert alarms[-1].why[0][0] == "vibration"
