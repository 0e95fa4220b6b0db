import json
from pathlib import Path

import pytest

from simulator.errors import UserError
from simulator.replay import read_replay


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_rows_keep_the_files_order_names_and_number_text(tmp_path: Path) -> None:
    text = "timestamp,value,note\n2014-01-01 00:05:00,1.10,a\n2014-01-01 00:00:00,-2e3,\n2014-01-01 00:00:00,007,b c\n"
    replay = read_replay(write(tmp_path / "m.csv", text))
    assert [row.text for row in replay.rows] == [
        '{"timestamp":"2014-01-01 00:05:00","value":1.10,"note":"a"}',
        '{"timestamp":"2014-01-01 00:00:00","value":-2e3}',
        '{"timestamp":"2014-01-01 00:00:00","value":"007","note":"b c"}',
    ]
    assert all(json.loads(row.text) for row in replay.rows)
    assert (replay.name, replay.time_column, replay.columns) == ("m", "timestamp", ("value",))
    first, second, third = (row.ts_micros for row in replay.rows)
    assert first == 1388534700000000
    assert second == third == 1388534400000000


def test_a_time_that_cannot_be_read_is_sent_as_it_stands(tmp_path: Path) -> None:
    replay = read_replay(write(tmp_path / "m.csv", "Time,value\nnever,1\n"))
    assert replay.rows[0].ts_micros is None
    assert replay.rows[0].text == '{"Time":"never","value":1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"no timestamp column \(found: a, b\); name it timestamp or ts or time"),
        ("", "no timestamp column"),
        ("timestamp,value\n2014-01-01,x\n", "no column holds numbers"),
        ("timestamp,value\n2014-01-01,1,2\n", ":2: 3 values under 2 column names"),
        ("timestamp,value\n2014-01-01,\udcff\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        read_replay(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_replay(tmp_path / "none.csv")


def test_labelled_windows_are_found_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "nab/data/real/m.csv", "timestamp,value\n2014-01-01 00:00:00,1\n")
    labels = {"real/m.csv": [["2014-01-01 00:00:00.000000", "2014-01-02 00:00:00.000000"]], "other.csv": []}
    write(tmp_path / "nab/labels/combined_windows.json", json.dumps(labels))
    replay = read_replay(path)
    (window,) = replay.windows
    assert window.covers(replay.rows[0].ts_micros)
    assert not window.covers(window.last_micros + 1)
    assert not window.covers(None)


def test_a_file_without_labels_has_no_windows(tmp_path: Path) -> None:
    assert read_replay(write(tmp_path / "m.csv", "timestamp,value\n2014-01-01 00:00:00,1\n")).windows == ()
