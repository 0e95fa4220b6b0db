"""Episodes: which anomalous rows of one series belong together. A pure state machine.

States: no episode (None), or one open Episode.

    row                           no episode            open episode
    anomaly                       Opened, Added         Added; after a quiet time first Closed, then Opened, Added
    scored, no anomaly            -                     Closed when it is the n-th since the last anomaly
    any with a time               -                     Closed after a quiet time
    (no row for a running time)   -                     Closed (`close`, called by the shell)

A quiet time is `close_after_secs` between the last anomaly and this row by their own timestamps. A row whose time is
unknown or goes back ends nothing by it: rows count in the order of their arrival.

Invariant: every anomalous row makes exactly one Added, so it stands in exactly one episode, however rows are cut into
messages: the machine never sees messages.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec


class Verdict(NamedTuple):
    """What the machine sees of a row. `micros` is `t` as a number, None when the time is unknown."""

    t: str | None
    micros: int | None
    score: float | None
    anomaly: bool


class Rules(NamedTuple):
    close_after_rows: int
    close_after_secs: float


class Episode(msgspec.Struct, frozen=True):
    """`started` and `last` are the times of its first and latest row that had one."""

    id: str
    rows: int = 0
    quiet_rows: int = 0
    started: str | None = None
    last: str | None = None
    last_micros: int | None = None
    peak_score: float | None = None


class Opened(NamedTuple):
    episode: Episode


class Added(NamedTuple):
    """The row that was given now belongs to the episode."""

    episode: Episode


class Closed(NamedTuple):
    episode: Episode


Change: TypeAlias = Opened | Added | Closed


def advance(
    episode: Episode | None, row: Verdict, rules: Rules, new_id: Callable[[], str]
) -> tuple[Episode | None, tuple[Change, ...]]:
    """The episode after the row, and what happened. `new_id` is called once for each episode that opens."""
    if episode is None:
        return _open(row, new_id) if row.anomaly else (None, ())
    if _is_quiet(episode, row, rules):
        after, changes = _open(row, new_id) if row.anomaly else (None, ())
        return after, (Closed(episode), *changes)
    if row.anomaly:
        episode = _add(episode, row)
        return episode, (Added(episode),)
    if row.score is None:
        return episode, ()
    episode = msgspec.structs.replace(episode, quiet_rows=episode.quiet_rows + 1)
    return (None, (Closed(episode),)) if episode.quiet_rows >= rules.close_after_rows else (episode, ())


def _is_quiet(episode: Episode, row: Verdict, rules: Rules) -> bool:
    if row.micros is None or episode.last_micros is None:
        return False
    return row.micros - episode.last_micros > rules.close_after_secs * 1_000_000


def _open(row: Verdict, new_id: Callable[[], str]) -> tuple[Episode, tuple[Change, ...]]:
    opened = Episode(new_id())
    added = _add(opened, row)
    return added, (Opened(added), Added(added))


def _add(episode: Episode, row: Verdict) -> Episode:
    peak = episode.peak_score
    if row.score is not None:
        peak = row.score if peak is None else max(peak, row.score)
    has_time = row.micros is not None
    return msgspec.structs.replace(
        episode,
        rows=episode.rows + 1,
        quiet_rows=0,
        started=row.t if episode.started is None and has_time else episode.started,
        last=row.t if has_time else episode.last,
        last_micros=row.micros if has_time else episode.last_micros,
        peak_score=peak,
    )
