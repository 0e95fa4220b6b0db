"""The judge is shown runs in which nothing went wrong, and the same runs with one thing spoiled."""

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.judgement import judge_run
from tests.simulator.spoils import SPOILS
from tests.simulator.true_run import BUNDLE, POLICY, make_run, stored

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
@settings(max_examples=25)
def test_a_run_in_which_nothing_went_wrong_is_intact(seed: int) -> None:
    """Lost and late attempts, demoted acknowledgements, repeats, poison, series that cross hours, replaced spools."""
    verdict = make_run(Random(seed)).judge()
    assert verdict.intact, "\n".join(verdict.problems)
    assert verdict.promised + verdict.attempted > 15


@pytest.mark.parametrize("name", SPOILS)
@given(SEEDS)
@settings(max_examples=4)
def test_what_is_spoiled_is_found(name: str, seed: int) -> None:
    fault, spoil = SPOILS[name]
    run = make_run(Random(seed))
    assume(spoil(run, Random(seed)))
    verdict = run.judge()
    assert fault in verdict.faults, (verdict, verdict.problems)


@given(SEEDS)
@settings(max_examples=4)
def test_each_device_must_have_something_stored_that_was_sent_after_the_faults(seed: int) -> None:
    run = make_run(Random(seed))
    last = dict.fromkeys(("sure", "gateway", "hasty"), 0.0)
    for sent in run.ledger.sent():
        if sent.is_promised and sent.message.texts and sent.message.body != b"{":
            last[sent.device] = max(last[sent.device], sent.began_at)
    assume(all(last.values()))  # now and then all that `hasty` sent was lost
    assert run.judge(faults_ended_at=min(last.values()) - 0.5).not_fresh == 0
    assert run.judge(faults_ended_at=min(last.values()) + 0.5).not_fresh >= 1
    assert run.judge(faults_ended_at=max(last.values()) + 0.5).not_fresh == 3


def test_a_batch_that_is_not_there_is_a_gap_in_the_chain() -> None:
    run = make_run(Random(5))
    storage = stored(run.pieces)
    first = next(place for place, batch in enumerate(storage.batches) if batch.name.lane == "readings")
    del storage.batches[first], storage.rows[first]
    problems = judge_run(run.ledger, storage, BUNDLE, POLICY).problems
    assert any("begins with batch 2" in problem for problem in problems)
