"""`edgeweir train` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from contract.bundle import Bundle
from contract.bundle_zip import files_from_zip
from tests.trainer.pumps import SENSORS, pump
from trainer.command import register


@pytest.fixture
def rows() -> list[dict[str, object]]:
    values = pump(np.random.default_rng(1), 600)
    values[400:440, 3] = 0.0
    return [
        {"timestamp": 1_767_225_600 + row, "machine": f"pump-{row % 2}", **dict(zip(SENSORS, line, strict=True))}
        | ({"label": "dropout"} if 400 <= row < 440 else {})
        for row, line in enumerate(values.tolist())
    ]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, header: str, lines: list[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(result: Result) -> str:
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


def test_json_lines_with_labels_give_a_bundle_and_a_table(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "pumps.jsonl", rows)
    result = run(data, "--output", tmp_path / "out", "--name", "pump", "--version", "3")
    assert result.exit_code == 0, result.output
    manifest = Bundle.from_files(read_folder(tmp_path / "out")).manifest
    assert (manifest.name, manifest.version) == ("pump", "3")
    assert [feature.name for feature in manifest.features] == list(SENSORS)
    assert manifest.series_pointer == "/machine"
    assert "dropout" in result.output
    assert "found 2 of 2 labelled events" in result.output


def test_the_same_command_writes_the_same_bytes_and_may_replace_a_bundle(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    data = write_jsonl(tmp_path / "pumps.jsonl", rows)
    assert run(data, "-o", tmp_path / "out").exit_code == 0
    first = read_folder(tmp_path / "out")
    assert run(data, "-o", tmp_path / "out").exit_code == 0
    assert read_folder(tmp_path / "out") == first
    assert run(data, "-o", tmp_path / "out.zip").exit_code == 0
    assert files_from_zip((tmp_path / "out.zip").read_bytes()) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.zip", "pumps.jsonl"]


def test_csv_with_labelled_windows_in_nab_form(tmp_path: Path) -> None:
    values = pump(np.random.default_rng(2), 2000)[:, 0]
    values[1500:1540] = 0.0
    lines = [
        f"2026-01-01 {row // 3600:02}:{row // 60 % 60:02}:{row % 60:02},{value}" for row, value in enumerate(values)
    ]
    data = write_csv(tmp_path / "machine.csv", "timestamp,value", lines)
    labels = tmp_path / "windows.json"
    labels.write_text(json.dumps({"real/machine.csv": [["2026-01-01 00:25:00.000000", "2026-01-01 00:26:00.000000"]]}))
    result = run(data, "-o", tmp_path / "out", "--labels", labels, "--train-fraction", "0.5", "--window", "12")
    assert result.exit_code == 0, result.output
    assert "found 1 of 1 labelled events; 0 false episodes in 1,000 rows" in result.output
    manifest = Bundle.from_files(read_folder(tmp_path / "out")).manifest
    assert (manifest.training.rows, manifest.window.length, manifest.series_pointer) == (1000, 12, None)


def test_nested_features_are_named_by_pointer(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    nested: list[dict[str, object]] = [{"t": row["timestamp"], "sensors": {"flow": row["flow"]}} for row in rows]
    data = write_jsonl(tmp_path / "nested.jsonl", nested)
    assert run(data, "-o", tmp_path / "out", "-f", "/sensors/flow").exit_code == 0
    manifest = Bundle.from_files(read_folder(tmp_path / "out")).manifest
    assert manifest.features[0].pointer == "/sensors/flow"
    assert manifest.timestamp_pointer == "/t"


def test_csv_without_a_timestamp_is_refused(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "x.csv", "a,b", ["1,2"] * 300)
    assert "no timestamp column; name one with --timestamp" in refusal(run(data, "-o", tmp_path / "out"))


def test_csv_without_numbers_is_refused(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "x.csv", "timestamp,b", ["2026-01-01T00:00:00Z,on"] * 300)
    assert "no numeric column" in refusal(run(data, "-o", tmp_path / "out"))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(run(tmp_path / "none.csv", "-o", tmp_path / "out"))


def test_binary_file_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "x.csv"
    data.write_bytes(bytes(range(256)) * 10)
    assert "not a UTF-8 CSV" in refusal(run(data, "-o", tmp_path / "out"))


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "holds no data" in refusal(run(tmp_path / "data", "-o", tmp_path / "out"))


def test_too_few_rows_are_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows[:50])
    assert "too few rows" in refusal(run(data, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_bundle_is_left_alone(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("do not lose")
    assert "exists and is not a bundle" in refusal(run(data, "-o", tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "do not lose"


def test_labels_of_other_files_are_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows)
    (tmp_path / "labels.json").write_text('{"other.csv": []}')
    assert "labels none of x.jsonl" in refusal(run(data, "-o", tmp_path / "out", "--labels", tmp_path / "labels.json"))


def test_misspelt_feature_is_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows)
    assert "'flaw' has no number" in refusal(run(data, "-o", tmp_path / "out", "-f", "flaw"))


def test_unreadable_lines_are_counted_not_guessed(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows)
    data.write_text(data.read_text() + "not json\n[1]\n")
    assert "2 unreadable lines left out" in run(data, "-o", tmp_path / "out").output
