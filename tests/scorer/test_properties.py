"""For any rows, cut into any messages, killed between any two steps: each row once, with the score it should have."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.bundle import Bundle, Feature, Window
from contract.messages import ScoredRow
from edge_module.kill_points import STEPS
from edge_module.testing import SimulatedCrash
from tests.scorer.bench import make_bench, rejected, scored
from tests.scorer.models import bundle_files
from tests.scorer.reference import Reference

FEATURES = (
    Feature("a", "/a"),
    Feature("b", "/b", missing="hold_last"),
    Feature("c", "/c", missing="constant", fill=0.5),
)
FILES = {
    stride: bundle_files(length=3, features=FEATURES, window=Window(3, stride), max_gap_secs=5.0) for stride in (1, 2)
}
# What the engine passes on the way of one message; the others belong to publishing.
CRASH_STEPS = [step for step in STEPS if step in ("seen_checked", "handled", "before_commit", "after_commit")]

numbers = st.integers(-1000, 1000).map(lambda value: value / 8) | st.sampled_from([None, True, "7"])
readings = st.fixed_dictionaries(
    {},
    optional={
        "t": st.integers(0, 12) | st.none(),
        "machine": st.sampled_from(["x", "y"]),
        "a": numbers,
        "b": numbers,
        "c": numbers,
    },
)
elements = readings | st.sampled_from([3, None, "text", [1]])
devices = st.sampled_from(["d1", "d2"])
# A message: who sent it, what is in it, and what happens while it is handled.
messages = st.tuples(devices, st.lists(elements, max_size=8), st.sampled_from(["", "restart", "disk", *CRASH_STEPS]))
runs = st.lists(messages, max_size=8)


def play(
    folder: Path, files: dict[str, bytes], run: list[tuple[str, list[Any], str]], *, faults: bool
) -> tuple[dict[tuple[int, int], ScoredRow], list[tuple[int, int]]]:
    """Feed the messages, again after each fault, as the hub would; scored rows and rejected ones by (message, i)."""
    bench = make_bench(folder, files, settings={"series_in_memory": 1})
    try:
        for number, (device, rows, fault) in enumerate(run):
            body = json.dumps(rows).encode()
            if faults and fault == "restart":
                bench.restart()
            elif faults and fault == "disk":
                bench.fail_next("before_commit")
                assert bench.feed(body, message_id=str(number), device=device).how == "held"
            elif faults and fault:
                bench.crash_next(fault)
                try:
                    bench.feed(body, message_id=str(number), device=device)
                except SimulatedCrash:
                    bench.restart()
            bench.feed(body, message_id=str(number), device=device)
        found: dict[tuple[int, int], ScoredRow] = {}
        bad: list[tuple[int, int]] = []
        # The outbox holds every committed message, whichever process wrote it.
        for message in bench.kept:
            result_rows = scored([_Emitted([message])])  # type: ignore[list-item]  # has the one field that is read
            source = _source(message.body)
            for row in result_rows:
                assert (source, row.i) not in found
                found[source, row.i] = row
            bad.extend((int(part.message), part.i or 0) for part in rejected(_Emitted([message])))  # type: ignore[arg-type]  # as above
        return found, bad
    finally:
        bench.close()


class _Emitted:
    def __init__(self, emitted: list[Any]) -> None:
        self.emitted = emitted


def _source(body: bytes) -> int:
    document = json.loads(body)
    return int(document["runs"][0]["source"]["message"]) if "runs" in document else -1


@settings(max_examples=60, deadline=None)
@given(runs, st.sampled_from([1, 2]))
@example([("d1", [{"a": 1.0, "b": 1.0}], "after_commit"), ("d1", [{"a": 2.0}] * 4, "disk")], 1)
def test_each_row_comes_out_once_with_the_reference_score_whatever_dies(
    run: list[tuple[str, list[Any], str]], stride: int
) -> None:
    reference = Reference(Bundle.from_files(FILES[stride]).manifest)
    with tempfile.TemporaryDirectory() as folder:
        found, bad = play(Path(folder), FILES[stride], run, faults=True)
    for number, (device, rows, _) in enumerate(run):
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                assert (number, i) in bad
                continue
            assert (number, i) not in bad
            score, reason = reference.row(device, row)
            out = found.pop((number, i))
            assert (out.score, out.no_score) == (score, reason)
            assert json.loads(bytes(out.reading)) == row
    assert not found
    assert len(bad) == len(set(bad))


@settings(max_examples=40, deadline=None)
@given(st.lists(readings, max_size=25), st.lists(st.integers(1, 7), max_size=25))
def test_scores_do_not_depend_on_how_rows_are_cut_into_messages(rows: list[Any], cuts: list[int]) -> None:
    pieces: list[tuple[str, list[Any], str]] = []
    at = 0
    for size in [*cuts, len(rows)]:
        if rows[at : at + size]:
            pieces.append(("d1", rows[at : at + size], ""))
        at += size
    with tempfile.TemporaryDirectory() as folder:
        whole, _ = play(Path(folder) / "whole", FILES[1], [("d1", rows, "")], faults=False)
        cut, _ = play(Path(folder) / "cut", FILES[1], pieces, faults=False)
    in_order = [cut[key] for key in sorted(cut)]
    assert [(row.score, row.no_score, row.series) for row in in_order] == [
        (row.score, row.no_score, row.series) for _, row in sorted(whole.items())
    ]
