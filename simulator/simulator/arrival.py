"""In which order messages arrived, found from the order in which their rows are stored; and whether it can be. Pure.

The promise: for rows x and y of one series, when x arrived before y and lies in the same hour folder or an earlier one,
then x has the lower place, by batch number and place in the batch. So what stands first in the same folder, or in a
later one, arrived first. Nothing follows from an earlier folder standing first. When a spool was replaced, all of the
new one stands behind all of the old one; which is which is not written anywhere, so the order is taken that agrees best
with the ledger.

Of each device's messages one order is looked for that is what the rows say and what the ledger allows: no message
before another that was acknowledged before the first was tried. What is open after that goes by first attempt.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Final

from simulator.ledger import Sent
from simulator.stored import LaneRows

# All their orders are tried: 24.
_TRIED_SPOOLS: Final = 4
_NEVER: Final = 2**62


@dataclass
class Arrival:
    """`order` holds every message given; `misplaced` has a line for each that cannot have arrived where it stands."""

    order: list[Sent] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)


def find_arrival(sent: Iterable[Sent], stored: Iterable[LaneRows]) -> Arrival:
    """Device by device. Rows of messages that are not in `sent` are passed over."""
    devices: dict[str, dict[str, Sent]] = {}
    for each in sent:
        devices.setdefault(each.device, {})[each.message.message_id] = each
    ordered = sorted(stored, key=lambda one: _first_promise(one, devices))
    orders = permutations(ordered) if len(ordered) <= _TRIED_SPOOLS else iter([tuple(ordered)])
    best = _arrival(next(orders), devices)
    for order in orders:
        if not best.misplaced:
            break
        best = min(best, _arrival(order, devices), key=lambda arrival: len(arrival.misplaced))
    return best


def _first_promise(spool: LaneRows, devices: Mapping[str, Mapping[str, Sent]]) -> int:
    identities = (_identity(row) for _, row in spool.rows)
    found = (devices.get(device, {}).get(message) for device, message, _ in identities)
    return min((sent.deadline for sent in found if sent is not None and sent.deadline is not None), default=_NEVER)


def _arrival(spools: Iterable[LaneRows], devices: Mapping[str, Mapping[str, Sent]]) -> Arrival:
    stored = [place for spool in spools for place in spool.rows]
    arrival = Arrival()
    after: dict[str, dict[str, set[str]]] = {device: {} for device in devices}
    for (device, _), rows in _by_series(stored, devices).items():
        arrival.misplaced += _follow(device, rows, after[device])
    for device, messages in devices.items():
        _arrange(messages, after[device], arrival)
    return arrival


@dataclass(frozen=True)
class _Place:
    folder: str
    message: str
    i: int


def _by_series(
    stored: Iterable[tuple[str, Mapping[str, Any]]], devices: Mapping[str, Mapping[str, Sent]]
) -> dict[tuple[str, str], list[_Place]]:
    """The places of each series, in order; of a row that is stored more than once the first."""
    found: dict[tuple[str, str], list[_Place]] = {}
    seen: set[tuple[str, str, int]] = set()
    for folder, row in stored:
        device, message, i = _identity(row)
        if message not in devices.get(device, {}) or (device, message, i) in seen:
            continue
        seen.add((device, message, i))
        found.setdefault((device, str(row.get("series"))), []).append(_Place(folder, message, i))
    return found


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return str(row.get("device")), str(row.get("message")), int(row.get("i") or 0)


def _follow(device: str, rows: Sequence[_Place], after: dict[str, set[str]]) -> list[str]:
    """Add to `after`, per message, those that arrived after it. A line for each row out of order in its message."""
    problems = []
    latest: dict[str, _Place] = {}  # per folder
    for row in rows:
        for before in latest.values():
            if before.folder < row.folder:
                continue
            if before.message != row.message:
                after.setdefault(before.message, set()).add(row.message)
            elif before.i > row.i:
                problems.append(f"{device} message {row.message} row {row.i} is stored after row {before.i}")
        latest[row.folder] = row
    return problems


def _arrange(messages: Mapping[str, Sent], after: Mapping[str, set[str]], arrival: Arrival) -> None:
    """Kahn's algorithm, the earliest begun first.

    As long as the rows allow any legal order this one is legal: of the messages still to come, the one whose promise
    is the oldest is free to come next, or waits for one that had to begin before that promise.
    """
    waits = dict.fromkeys(messages, 0)
    for followers in after.values():
        for follower in followers:
            waits[follower] += 1
    free = [(messages[name].begun, name) for name, count in waits.items() if count == 0]
    heapq.heapify(free)
    promises = sorted((sent.deadline, name) for name, sent in messages.items() if sent.deadline is not None)
    left = set(messages)
    oldest = 0
    while left:
        if free:
            _, name = heapq.heappop(free)
        else:
            name = min(left, key=lambda one: messages[one].begun)
            arrival.misplaced.append(f"{messages[name].device} message {name} is stored both before and after another")
        if name not in left:
            continue
        left.remove(name)
        chosen = messages[name]
        while oldest < len(promises) and promises[oldest][1] not in left:
            oldest += 1
        if oldest < len(promises) and promises[oldest][0] < chosen.begun:
            arrival.misplaced.append(
                f"{chosen.device} message {name} is stored before message {promises[oldest][1]}, which was acknowledged"
                " before it was first sent"
            )
        arrival.order.append(chosen)
        for follower in after.get(name, ()):
            waits[follower] -= 1
            if waits[follower] == 0 and follower in left:
                heapq.heappush(free, (messages[follower].begun, follower))
