import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from contract.batch import BlobName
from simulator.demo import DemoPlan, Outcome
from simulator.faults import Fault
from simulator.oracle import Expected, ExpectedRow, RowId, Verdict
from simulator.replay import LabelledWindow
from simulator.report import last_line, passed, show_report
from simulator.scenario import Scenario
from simulator.screen import PlainScreen, Snapshot, open_screen
from simulator.stored import Batch, Number, Storage

BATCH = Batch("", BlobName("anomalies", "s", "date=unknown/hour=unknown", "0a", 1, "0" * 16), None, 1, "")
FAULTS = (
    Fault("m", "spike", "flow", 10, 15),
    Fault("m", "stuck", "flow", 40, 45),
    Fault("m", "drift", "flow", 70, 75),
)


def outcome(*episodes: tuple[int, ...], replay: Path | None = None, verdict: Verdict | None = None) -> Outcome:
    """A run over 100 rows of machine `m`, with episodes at the given row numbers."""
    expected = Expected()
    for index in range(100):
        expected.rows[RowId("m", "1", index)] = ExpectedRow("m", index, {}, 1.0, None, False)
    events = [
        {"episode": str(n), "rows": [{"device": "m", "message": "1", "i": Number(index)} for index in rows]}
        for n, rows in enumerate(episodes)
    ]
    return Outcome(
        plan=DemoPlan(root=Path(), state=Path(), replay=replay),
        scenario=Scenario(
            "test", (), () if replay else FAULTS, (LabelledWindow(20, 30),), tuple(range(100)) if replay else ()
        ),
        window_rows=4,
        expected=expected,
        verdict=verdict or Verdict(sent=103, stored=100, rejected=3),
        storage=Storage(batches=[BATCH] * 7, rows=[events, *([] for _ in range(6))]),
        kills=3,
        outage_secs=30.2,
        elapsed_secs=125.0,
    )


def test_the_last_line_is_exact() -> None:
    assert last_line(outcome((10,), (41, 42), (71,), (90,))) == (
        "sent=103 stored=100 missing=0 duplicated=0 values_differ=0 rejected=3 episodes_found=2/2 false_episodes=1 "
        "kills=3 outage_secs=30 timings=real"
    )


def test_the_last_line_tells_scaled_timings() -> None:
    scaled = outcome()
    scaled.plan = dataclasses.replace(scaled.plan, scale=10.0)
    assert last_line(scaled).endswith("timings=scaled:10")


def test_a_run_passes_with_all_rows_and_enough_faults() -> None:
    assert passed(outcome((10,), (41,)))
    assert passed(outcome((10,), (41,), (90,)))


@pytest.mark.parametrize(
    "failed",
    [
        outcome((10,)),  # half of the judged faults
        outcome((10,), (41,), (90,), (95,)),  # two false episodes on one device
        outcome((10,), (41,), verdict=Verdict(missing=1)),
        outcome((10,), (41,), verdict=Verdict(duplicated=1)),
        outcome((10,), (41,), verdict=Verdict(values_differ=1)),
        outcome((10,), (41,), verdict=Verdict(episodes_differ=1)),
        outcome((10,), (41,), verdict=Verdict(unexpected=1)),
    ],
)
def test_a_run_fails_for_each_broken_promise(failed: Outcome) -> None:
    assert not passed(failed)


def test_a_replay_is_judged_by_its_rows_alone() -> None:
    replayed = outcome((50,), (60,), (70,), replay=Path("m.csv"))
    assert passed(replayed)
    assert "episodes_found=0/1 false_episodes=3" in last_line(replayed)
    assert "episodes_found=1/1 false_episodes=0" in last_line(outcome((25, 50), replay=Path("m.csv")))
    assert not passed(outcome(replay=Path("m.csv"), verdict=Verdict(missing=1)))


def shown(result: Outcome) -> str:
    console = Console(file=io.StringIO(), width=100)
    show_report(console, result)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_report_names_what_broke() -> None:
    verdict = Verdict(sent=103, missing=2, problems=["m message 1 row 5 is nowhere"])
    text = shown(outcome((10,), verdict=verdict))
    assert "NO     each of 103 sent rows is stored" in text
    assert "2 missing" in text
    assert "m message 1 row 5 is nowhere" in text
    assert "yes    none is stored twice" in text


def test_the_report_of_a_replay_shows_its_windows() -> None:
    text = shown(outcome((25,), (70,), replay=Path("m.csv")))
    assert "1970-01-01T00:00:00.000020Z" in text
    assert "1 episode lies in no labelled window" in text
    assert "trained on" not in text  # 15 of 100 rows were, and the window begins at the 20th


def test_a_labelled_window_in_the_training_part_is_marked() -> None:
    replayed = outcome(replay=Path("m.csv"))
    early = dataclasses.replace(replayed.scenario, windows=(LabelledWindow(5, 30),))
    assert "in the part trained on" in shown(dataclasses.replace(replayed, scenario=early))


def test_without_a_terminal_there_are_calm_lines() -> None:
    console = Console(file=io.StringIO(), width=60)
    with open_screen(console, "x") as screen:
        assert isinstance(screen, PlainScreen)
        for secs in range(25):
            screen.update(Snapshot(elapsed_secs=float(secs), sent_rows=secs, faults_injected=3))
        screen.event(65.0, "storage is back")
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(" 0:10  sent 10 of 0")
    assert lines[3] == " 1:05  storage is back"


def test_on_a_terminal_there_is_a_table() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with open_screen(console, "12 pumps") as screen:
        screen.event(1.0, "everything is up")
        screen.update(Snapshot(elapsed_secs=2.0, phase="sending", blobs=4, modules=(("scorer", "down"),)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for words in ("12 pumps", "everything is up", "4 blobs", "down"):
        assert words in text
