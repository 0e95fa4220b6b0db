"""The end of a demo: what was found, and the one line that says whether it held."""

import sys

from rich.console import Console
from rich.table import Table

from contract.timestamps import format_timestamp
from simulator.demo import Outcome
from simulator.detection import Episode, FaultScore, collect_episodes, score_faults
from simulator.faults import FAULT_KINDS, JUDGED_KINDS
from simulator.scenario import TRAINING_SHARE
from simulator.screen import clock


def last_line(outcome: Outcome) -> str:
    """Machine-readable: space-separated key=value."""
    verdict, plan = outcome.verdict, outcome.plan
    found, wanted = found_of(outcome)
    false_episodes = count_false(outcome)
    timings = "real" if plan.scale == 1 else f"scaled:{plan.scale:g}"
    return (
        f"sent={verdict.sent} stored={verdict.stored} missing={verdict.missing} duplicated={verdict.duplicated} "
        f"values_differ={verdict.differing} "
        f"rejected={verdict.rejected} episodes_found={found}/{wanted} false_episodes={false_episodes} "
        f"kills={outcome.kills} outage_secs={outcome.outage_secs:.0f} timings={timings}"
    )


def passed(outcome: Outcome) -> bool:
    """A replay is judged by its rows alone: its labels are somebody else's opinion."""
    return outcome.verdict.intact and (bool(outcome.plan.replay) or fault_score(outcome).good_enough)


def episodes(outcome: Outcome) -> list[Episode]:
    return collect_episodes(outcome.expected, outcome.storage.lane("anomalies"))


def fault_score(outcome: Outcome) -> FaultScore:
    return score_faults(outcome.scenario.faults, episodes(outcome), window_rows=outcome.window_rows)


def found_of(outcome: Outcome) -> tuple[int, int]:
    """Injected faults of the judged kinds, or labelled windows: found, and all of them."""
    if outcome.plan.replay is None:
        return fault_score(outcome).judged
    return sum(found for _, _, found in labelled_windows(outcome)), len(outcome.scenario.windows)


def count_false(outcome: Outcome) -> int:
    if outcome.plan.replay is None:
        return fault_score(outcome).false_episodes.total()
    return sum(not _in_a_window(outcome, episode) for episode in episodes(outcome))


def labelled_windows(outcome: Outcome) -> list[tuple[int, int, bool]]:
    """First and last microsecond of each labelled window, and whether an episode touches it."""
    touched = [outcome.scenario.times[index] for episode in episodes(outcome) for index in episode.indexes]
    return [
        (window.first_micros, window.last_micros, any(window.covers(micros) for micros in touched))
        for window in outcome.scenario.windows
    ]


def _trained_until(outcome: Outcome) -> int:
    """The last microsecond of the rows that the model was fitted to; a labelled window there is no fair question."""
    times = outcome.scenario.times
    known = [micros for micros in times[: int(len(times) * TRAINING_SHARE)] if micros is not None]
    return max(known, default=-sys.maxsize)


def _in_a_window(outcome: Outcome, episode: Episode) -> bool:
    times = [outcome.scenario.times[index] for index in episode.indexes]
    return any(window.covers(micros) for window in outcome.scenario.windows for micros in times)


def show_report(console: Console, outcome: Outcome) -> None:
    verdict = outcome.verdict
    console.print()
    _show_detection(console, outcome)
    table = Table(show_header=False, box=None, padding=(0, 2))
    promises = [
        (verdict.missing, f"each of {verdict.sent:,} sent rows is stored", "missing"),
        (verdict.duplicated, "none is stored twice", "duplicated"),
        (verdict.values_differ, "values and scores equal those of an undisturbed run", "different"),
        (verdict.episodes_differ, "each anomalous row is in exactly one episode", "wrong"),
        (verdict.unexpected, "nothing is stored that was not sent", "unexpected"),
        (verdict.out_of_order, "each series is stored in the order in which it came", "out of order"),
    ]
    for faults, promise, word in promises:
        held = faults == 0
        table.add_row("[green]yes[/]" if held else "[red]NO[/]", promise, "" if held else f"{faults:,} {word}")
    console.print(table)
    console.print(
        f"{verdict.stored:,} readings in {outcome.storage.blobs:,} batches, {verdict.rejected:,} rejected with their "
        f"bytes; {outcome.kills} modules killed, storage away for {outcome.outage_secs:.0f} s; "
        f"took {clock(outcome.elapsed_secs)}",
        highlight=False,
        soft_wrap=True,
    )
    for problem in verdict.problems:
        console.print(f"  {problem}", highlight=False, soft_wrap=True, markup=False)


def _show_detection(console: Console, outcome: Outcome) -> None:
    if outcome.plan.replay is not None:
        _show_windows(console, outcome)
        return
    score = fault_score(outcome)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("injected fault")
    table.add_column("found", justify="right")
    table.add_column("of", justify="right")
    table.add_column("")
    for kind in FAULT_KINDS:
        judged = "" if kind in JUDGED_KINDS else "not judged"
        table.add_row(kind.replace("_", " "), str(score.found[kind]), str(score.injected[kind]), judged)
    table.add_row("false episodes", str(score.false_episodes.total()), "", "at most one per device")
    console.print(table)
    console.print()


def _show_windows(console: Console, outcome: Outcome) -> None:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("labelled window")
    table.add_column("to")
    table.add_column("found")
    table.add_column("")
    trained_until = _trained_until(outcome)
    for first, last, found in labelled_windows(outcome):
        note = "in the part trained on" if first <= trained_until else ""
        table.add_row(format_timestamp(first), format_timestamp(last), "yes" if found else "no", note)
    console.print(table)
    outside = count_false(outcome)
    console.print(
        f"{outside} {'episode lies' if outside == 1 else 'episodes lie'} in no labelled window", highlight=False
    )
    console.print()
