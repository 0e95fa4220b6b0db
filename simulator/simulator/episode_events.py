"""Whether the events of episodes tell of whole lives. Pure.

An episode is opened once, with rows; further rows come in `updated` events; it is closed at most once, without rows,
and nothing comes after. Each event's `rows_total` counts the rows so far, so the order in which an episode's events
were made is known from the events themselves, and where they stand in storage is compared with it. A series has one
episode at a time, so at most one of its episodes is open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from simulator.stored import LaneRows, Number

Event = Mapping[str, Any]
_KINDS: Final = ("opened", "updated", "closed")


def episode_problems(events: Iterable[Event], *, all_closed: bool = False) -> list[str]:
    """A line for each thing that is wrong. With `all_closed` an episode that is still open is wrong, too."""
    problems: list[str] = []
    open_now: dict[tuple[str, str], list[str]] = {}
    for name, members in _by_episode(events).items():
        life = sorted(members, key=_moment)
        problems += [f"episode {name} {problem}" for problem in (*_life_problems(life), *_owner_problems(life))]
        if all(event.get("kind") != "closed" for event in life):
            open_now.setdefault(_owner(life[0]), []).append(name)
    for (device, series), names in open_now.items():
        if len(names) > 1 or all_closed:
            problems.append(f"{device} series {series}: open are the episodes {', '.join(sorted(names))}")
    return problems


def misplaced_events(stored: Iterable[LaneRows]) -> list[str]:
    """A line for each event that stands before an earlier one of its episode, in the same hour folder or a later one.

    As for rows, nothing follows from an earlier folder standing first; nor from what two spools hold.
    """
    return [
        f"episode {name}: {later.get('kind')} of {later.get('rows_total')} rows is stored before"
        f" {earlier.get('kind')} of {earlier.get('rows_total')}"
        for sequence in stored
        for name, life in _placed(sequence).items()
        for (before, folder, earlier), (place, later_folder, later) in pairwise(life)
        if place < before and folder <= later_folder
    ]


def _placed(sequence: LaneRows) -> dict[str, list[tuple[int, str, Event]]]:
    """Per episode its events in the order of its life, each with its place and its folder."""
    found: dict[str, list[tuple[int, str, Event]]] = {}
    for place, (folder, event) in enumerate(sequence.rows):
        found.setdefault(str(event.get("episode")), []).append((place, folder, event))
    return {name: sorted(life, key=lambda placed: _moment(placed[2])) for name, life in found.items()}


def _by_episode(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(str(event.get("episode")), []).append(event)
    return found


def _moment(event: Event) -> tuple[int, int]:
    kind = event.get("kind")
    return _total(event), _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _total(event: Event) -> int:
    total = event.get("rows_total")
    return int(total) if isinstance(total, Number) else 0


def _life_problems(life: Sequence[Event]) -> Iterator[str]:
    kinds = [str(event.get("kind")) for event in life]
    if strange := sorted({*kinds} - {*_KINDS}):
        yield f"has events of the kind {', '.join(strange)}"
    if kinds[0] != "opened":
        yield f"begins with {kinds[0]}"
    for kind in ("opened", "closed"):
        if (times := kinds.count(kind)) > 1:
            yield f"is {kind} {times} times"
    if "closed" in kinds[:-1] and kinds.count("closed") == 1:
        yield "goes on after it is closed"
    rows = 0
    for event in life:
        added = len(event.get("rows", ()))
        rows += added
        if (added == 0) != (event.get("kind") == "closed"):
            yield f"is {event.get('kind')} with {added} rows"
        if not isinstance(event.get("rows_total"), Number) or _total(event) != rows:
            yield f"counts {event.get('rows_total')!r} rows when there are {rows}"
            return


def _owner_problems(life: Sequence[Event]) -> Iterator[str]:
    """An event and its rows name the device and the series, as far as the policy lets them out."""
    named = [each for event in life for each in (event, *event.get("rows", ()))]
    for name in ("device", "series"):
        if len(owners := {str(each[name]) for each in named if name in each}) > 1:
            yield f"is of more than one {name}: {', '.join(sorted(owners))}"


def _owner(event: Event) -> tuple[str, str]:
    first = next(iter(event.get("rows", ())), event)
    return str(event.get("device", first.get("device"))), str(event.get("series", first.get("series")))
