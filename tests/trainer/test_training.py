"""What a trained bundle must be: reproducible, honest about its data, and able to find faults."""

from typing import get_args

import msgspec
import numpy as np
import pytest

from contract.bundle import PARITY_FILE, Bundle
from tests.trainer.pumps import COLUMNS, Fault, fleet, pump, series, with_fault
from trainer.detector import score
from trainer.errors import TrainError
from trainer.evaluate import evaluate, score_series
from trainer.graph import to_onnx
from trainer.labels import Event
from trainer.quiet_onnx import onnxruntime
from trainer.table import Columns
from trainer.training import Config, Trained, train


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(fleet(6, 1500), COLUMNS, Config(name="pump"))


def test_equal_data_give_equal_bytes(trained: Trained) -> None:
    assert train(fleet(6, 1500), COLUMNS, Config(name="pump")).files == trained.files


def test_bundle_is_valid_and_says_what_it_was_trained_on(trained: Trained) -> None:
    manifest = Bundle.from_files(trained.files).manifest
    assert manifest.features[0].pointer == "/temperature"
    assert (manifest.timestamp_pointer, manifest.series_pointer) == ("/timestamp", "/machine")
    assert (manifest.training.rows, manifest.training.series) == (9000, 6)
    assert manifest.max_gap_secs == 10
    assert manifest.created == "2026-01-01T00:24:59Z"
    assert len(Bundle.from_files(trained.files).parity) == 16


def test_other_data_have_another_fingerprint(trained: Trained) -> None:
    other = train(fleet(6, 1500, seed=8), COLUMNS, Config(name="pump")).bundle.manifest.training
    assert other.sha256 != trained.bundle.manifest.training.sha256


def test_graph_and_numpy_agree_on_windows_they_were_not_fitted_to(trained: Trained) -> None:
    rng = np.random.default_rng(1)
    windows = rng.normal(50, 40, size=(500, 16, 5))
    windows[:50, :, 2] = 3.0
    windows[50:60] *= 1e300
    session = onnxruntime.InferenceSession(to_onnx(trained.detector), providers=["CPUExecutionProvider"])
    scores, shares = session.run(["score", "contributions"], {"window": windows})
    expected, expected_shares = score(trained.detector, windows)
    np.testing.assert_allclose(scores, expected, rtol=1e-11)
    np.testing.assert_allclose(shares, expected_shares, atol=1e-9)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert np.isfinite(scores).all()


def test_clean_pumps_raise_next_to_no_false_episode() -> None:
    known = fleet(6, 12_000)
    trained = train(known, COLUMNS, Config(name="pump", train_fraction=0.125))
    threshold = trained.bundle.manifest.threshold.value
    result = evaluate(trained.detector, threshold, known, [], max_gap_secs=10, first_rows=trained.trained_rows)
    assert result.scored == 6 * 10_500
    assert result.false_episodes <= 3


@pytest.mark.parametrize("kind", get_args(Fault))
def test_most_faults_are_found_and_the_faulty_sensor_leads_the_reasons(trained: Trained, kind: Fault) -> None:
    rng = np.random.default_rng(3)
    threshold = trained.bundle.manifest.threshold.value
    found = blamed = 0
    for _ in range(40):
        clean = pump(rng, 200)
        faulty = with_fault(rng, clean, kind, 120, 40)
        sensor = int((clean != faulty).any(axis=0).argmax())
        _, scores = score_series(trained.detector, series("pump", faulty), 10)
        alarms = np.flatnonzero(scores[120 - 15 : 160 - 15] > threshold)
        found += len(alarms) > 0
        if len(alarms):
            row = 120 + int(alarms[-1])
            blamed += int(score(trained.detector, faulty[None, row - 15 : row + 1])[1].argmax()) == sensor
    assert found >= 34
    assert blamed >= 0.85 * found


def test_constant_feature_neither_breaks_training_nor_hides_its_own_change() -> None:
    rng = np.random.default_rng(4)
    values = np.column_stack([pump(rng, 1000)[:, :2], np.full(1000, 5.0)])
    columns = Columns((("a", "/a"), ("b", "/b"), ("constant", "/constant")), "/timestamp", None, None)
    trained = train([series("one", values)], columns, Config(name="x"))
    changed = values[:200].copy()
    changed[100:, 2] = 6.0
    _, scores = score_series(trained.detector, series("one", changed), 10)
    assert (scores[:80] <= trained.bundle.manifest.threshold.value).all()
    assert (scores[90:] > trained.bundle.manifest.threshold.value).any()


def test_outliers_in_the_training_data_do_not_lift_the_threshold_over_later_faults() -> None:
    dirty = fleet(6, 1500)
    for one in dirty[:2]:
        one.values[700:703, 1] += 1000.0
    trained = train(dirty, COLUMNS, Config(name="pump"))
    rng = np.random.default_rng(5)
    faulty = with_fault(rng, pump(rng, 200), "dropout", 120, 40)
    _, scores = score_series(trained.detector, series("pump", faulty), 10)
    assert (scores > trained.bundle.manifest.threshold.value).any()


def test_labelled_rows_are_not_trained_on() -> None:
    data = fleet(4, 1000)
    clean = train(data, COLUMNS, Config(name="pump"))
    data[0].values[500:600, 3] = 0.0
    labelled = train(data, COLUMNS, Config(name="pump"), events=[Event("pump-0", 500, 599, "dropout")])
    assert labelled.windows == clean.windows - 100 - 15
    rng = np.random.default_rng(6)
    _, scores = score_series(labelled.detector, series("x", with_fault(rng, pump(rng, 200), "dropout", 120, 40)), 10)
    assert (scores > labelled.bundle.manifest.threshold.value).any()


def test_windows_span_neither_gaps_nor_missing_features_nor_series() -> None:
    one = fleet(1, 1000)[0]
    one.times[500:] += 3_600_000_000
    one.values[200, 2] = np.nan
    trained = train([one], COLUMNS, Config(name="pump"))
    # 999 rows in two runs, for a row without a feature is left out and its neighbours are still neighbours.
    assert trained.windows == (499 - 15) + (500 - 15)


def test_first_part_is_all_that_is_looked_at() -> None:
    whole, changed = fleet(2, 1000), fleet(2, 1000)
    for one in changed:
        one.values[500:] = 0.0
    config = Config(name="pump", train_fraction=0.5)
    assert train(whole, COLUMNS, config).files == train(changed, COLUMNS, config).files


def test_too_few_rows_for_the_window_is_said() -> None:
    with pytest.raises(TrainError, match="too few rows: 85 clean windows of 16 rows"):
        train(fleet(1, 100), COLUMNS, Config(name="pump"))


def test_data_that_never_changes_is_refused() -> None:
    with pytest.raises(TrainError, match="no feature ever changes"):
        train([series("flat", np.ones((500, 5)))], COLUMNS, Config(name="pump"))


@pytest.mark.parametrize(
    "options", [{"window": 3}, {"stride": 0}, {"train_fraction": 0.0}, {"false_alarm_rate": 0.5}, {"created": "soon"}]
)
def test_option_out_of_bounds_is_named(options: dict[str, object]) -> None:
    with pytest.raises(TrainError, match="--" + next(iter(options)).replace("_", "-")):
        msgspec.convert({"name": "x", **options}, Config)


def test_parity_rows_are_real_windows(trained: Trained) -> None:
    data = np.concatenate([one.values for one in fleet(6, 1500)]).tolist()
    for line in trained.files[PARITY_FILE].splitlines()[:3]:
        first = msgspec.json.decode(line)["window"][0]
        assert first in data
