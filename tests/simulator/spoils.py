"""Ways to spoil a true run, one thing each. A spoil returns False when the run has nothing of its kind to spoil.

Each is named with the fault that the judge must find; it may find others, where one wrong thing is wrong twice.
"""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from random import Random
from typing import Any, Final

from contract.lanes import Lane
from simulator.delivery import Message
from simulator.oracle import row_id
from simulator.stored import Number
from tests.simulator.true_run import Piece, TrueRun, cut, number

Spoil = Callable[[TrueRun, Random], bool]
Place = tuple[Piece, int]
SPOILS: Final[dict[str, tuple[str, Spoil]]] = {}


def spoils(fault: str) -> Callable[[Spoil], Spoil]:
    def register(spoil: Spoil) -> Spoil:
        SPOILS[spoil.__name__] = fault, spoil
        return spoil

    return register


def row_at(place: Place) -> dict[str, Any]:
    piece, index = place
    return piece.rows[index]


def pick(run: TrueRun, rng: Random, lane: Lane, wanted: Callable[[dict[str, Any]], object]) -> Place | None:
    found = [place for place in run.places(lane) if wanted(row_at(place))]
    return rng.choice(found) if found else None


def remove(place: Place | None) -> bool:
    if place is None:
        return False
    piece, index = place
    del piece.rows[index]
    return True


def repeat(place: Place | None) -> bool:
    """Once more, at the end of its batch."""
    if place is None:
        return False
    place[0].rows.append(deepcopy(row_at(place)))
    return True


def is_promised(run: TrueRun) -> Callable[[dict[str, Any]], bool]:
    promised = {(sent.device, sent.message.message_id) for sent in run.ledger.sent() if sent.is_promised}
    return lambda row: row_id(row)[:2] in promised


@spoils("missing")
def a_promised_row_is_dropped(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", is_promised(run))
    return remove(place)


@spoils("missing")
def a_promised_message_is_dropped_whole(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", is_promised(run))
    if place is None:
        return False
    identity = row_id(row_at(place))[:2]
    for piece in run.pieces:
        if piece.lane == "anomalies":
            piece.rows = [
                event for event in piece.rows if not any(row_id(row)[:2] == identity for row in event.get("rows", ()))
            ]
        else:
            piece.rows = [row for row in piece.rows if row_id(row)[:2] != identity]
    return True


@spoils("missing")
def an_attempted_message_is_stored_in_part(run: TrueRun, rng: Random) -> bool:
    promised = is_promised(run)
    rows = [row for piece in run.of("readings") for row in piece.rows if not promised(row)]
    several = [row for row in rows if sum(row_id(row)[:2] == row_id(other)[:2] for other in rows) > 1]
    place = pick(run, rng, "readings", lambda row: row in several)
    return remove(place)


@spoils("missing")
def a_promised_rejected_body_is_dropped(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "rejected", is_promised(run))
    return remove(place)


@spoils("duplicated")
def a_row_is_stored_twice(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", bool)
    assert place is not None
    target = rng.choice([piece for piece in run.of("readings") if piece.folder == place[0].folder])
    target.rows.insert(rng.randint(0, len(target.rows)), deepcopy(row_at(place)))
    return True


@spoils("duplicated")
def an_attempted_row_is_stored_twice(run: TrueRun, rng: Random) -> bool:
    promised = is_promised(run)
    place = pick(run, rng, "readings", lambda row: not promised(row))
    return repeat(place)


@spoils("unexpected")
def a_row_that_was_never_sent_is_stored(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", bool)
    assert place is not None
    row = deepcopy(row_at(place))
    row[rng.choice(("device", "message"))] = "other"
    place[0].rows.append(row)
    return True


@spoils("out_of_order")
def two_promised_rows_of_a_series_change_places(run: TrueRun, rng: Random) -> bool:
    """Within a batch or across two of the same hour, each with all its values."""
    place = pick(run, rng, "readings", is_promised(run))
    assert place is not None
    first, promised = row_at(place), is_promised(run)
    other = pick(
        run,
        rng,
        "readings",
        lambda row: (
            row is not first
            and promised(row)
            and (row["device"], row["series"]) == (first["device"], first["series"])
            and _surely_apart(run, first, row)
        ),
    )
    if other is None or (other[0].folder, other[0].spool) != (place[0].folder, place[0].spool):
        return False
    place[0].rows[place[1]], other[0].rows[other[1]] = row_at(other), first
    return True


def _surely_apart(run: TrueRun, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the ledger says which of the two arrived first."""
    sent = {(each.device, each.message.message_id): each for each in run.ledger.sent()}
    a, b = sent[row_id(one)[0], row_id(one)[1]], sent[row_id(other)[0], row_id(other)[1]]
    assert a.deadline is not None
    assert b.deadline is not None
    return a == b or a.deadline < b.begun or b.deadline < a.begun


@spoils("out_of_order")
def an_hour_is_numbered_before_the_one_that_came_before_it(run: TrueRun, rng: Random) -> bool:
    run.pieces = cut(run.arrived, Random(0))
    pieces = [piece for piece in run.of("readings") if any(row["device"] == "sure" for row in piece.rows)]
    folders = {piece.folder for piece in pieces if any(is_promised(run)(row) for row in piece.rows)}
    if len(folders) < 2 or len({piece.spool for piece in run.of("readings")}) > 1:
        return False
    promised = is_promised(run)
    if any(not promised(row) for piece in pieces for row in piece.rows if row["device"] == "sure"):
        return False  # what is only attempted may have come in between
    run.pieces.sort(key=lambda piece: piece.folder, reverse=True)
    return True


@spoils("out_of_order")
def two_messages_were_taken_in_the_wrong_order_all_the_way(run: TrueRun, rng: Random) -> bool:
    """Scores and all: as if a module had let one overtake the other."""
    sure = [place for place, (device, _) in enumerate(run.arrived) if device == "sure"]
    sent = {each.message.message_id: each for each in run.ledger.sent() if each.device == "sure"}
    pairs = [
        (one, other)
        for one, other in pairwise(sure)
        if (deadline := sent[run.arrived[one][1].message_id].deadline) is not None
        and deadline < sent[run.arrived[other][1].message_id].begun
        and _hour(run.arrived[one][1]) == _hour(run.arrived[other][1])
    ]
    if not pairs:
        return False
    one, other = rng.choice(pairs)
    run.arrived[one], run.arrived[other] = run.arrived[other], run.arrived[one]
    run.pieces = cut(run.arrived, rng)
    return True


def _hour(message: Message) -> set[int]:
    return {int(text.split('"ts": ')[1].split(",")[0]) // 3600 for text in message.texts}


@spoils("values_differ")
def a_rows_place_in_its_message_is_a_text(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: True)
    if place is None:
        return False
    row_at(place)["i"] = str(int(row_at(place)["i"]))
    return True


@spoils("values_differ")
def a_digit_of_a_value_is_another(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: "reading" in row)
    assert place is not None
    reading = row_at(place)["reading"]
    name = rng.choice(sorted(reading))
    digit = reading[name][-1]
    reading[name] = Number(reading[name][:-1] + rng.choice([other for other in "0123456789" if other != digit]))
    return True


@spoils("values_differ")
def a_value_loses_its_zero(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: row["reading"]["fine"].endswith(".0"))
    if place is None:
        return False
    reading = row_at(place)["reading"]
    reading["fine"] = Number(reading["fine"][:-2])
    return True


@spoils("values_differ")
def the_seventh_digit_of_a_score_is_another(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: float(row.get("score", 0)) > 0)
    if place is None:
        return False
    row = row_at(place)
    row["score"] = number(float(f"{float(row['score']) * (1 + 3e-7):.9g}"))
    return True


@spoils("values_differ")
def a_window_is_warm_again(run: TrueRun, rng: Random) -> bool:
    """As after a restart that forgot its windows."""
    place = pick(run, rng, "readings", lambda row: "score" in row and not row["anomaly"])
    if place is None:
        return False
    row = row_at(place)
    del row["score"], row["threshold"]
    row["no_score"] = "warm_up"
    return True


@spoils("values_differ")
def another_reason_stands_for_no_score(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: row.get("no_score", "gap") != "gap")
    assert place is not None
    row_at(place)["no_score"] = "gap"
    return True


@spoils("values_differ")
def a_share_is_another(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: "why" in row)
    if place is None:
        return False
    why = row_at(place)["why"]
    if rng.random() < 0.5 and len(why) > 1:
        why.reverse()
    else:
        why[0][1] = number(float(why[0][1]) * (1 + 1e-7))
    return True


@spoils("values_differ")
def why_is_not_said(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", lambda row: "why" in row)
    return place is not None and row_at(place).pop("why") is not None


@spoils("values_differ")
def a_row_is_in_the_wrong_lane(run: TrueRun, rng: Random) -> bool:
    place, bad = pick(run, rng, "readings", is_promised(run)), pick(run, rng, "rejected", bool)
    if place is None or bad is None:
        return False
    row = row_at(place)
    bad[0].rows.append({**row_at(bad), **{name: row[name] for name in ("device", "message", "i")}})
    remove(place)
    return True


@spoils("values_differ")
def a_batch_is_of_another_origin(run: TrueRun, rng: Random) -> bool:
    piece = rng.choice([piece for piece in run.of("readings") if piece.rows])
    name = rng.choice(("policy", "model"))
    setattr(piece, name, "sha256:" + "e" * 64)
    return True


@spoils("values_differ")
def a_row_lies_in_another_hour(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "readings", bool)
    assert place is not None
    others = [piece for piece in run.of("readings") if piece.folder != place[0].folder]
    if not others:
        return False
    row = row_at(place)
    remove(place)
    rng.choice(others).rows.append(row)
    return True


@spoils("values_differ")
def a_rejected_body_is_another(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "rejected", bool)
    if place is None:
        return False
    row_at(place)["body_b64"] = "AAAA"
    return True


@spoils("values_differ")
def a_body_is_rejected_for_another_reason(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "rejected", bool)
    if place is None:
        return False
    row = row_at(place)
    row["reason"] = rng.choice([code for code in ("not_json", "not_a_reading", "bad_shape") if code != row["reason"]])
    return True


@spoils("episodes_differ")
def an_anomaly_is_in_no_episode(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", lambda event: event.get("rows"))
    return remove(place)


@spoils("episodes_differ")
def an_anomaly_is_in_two_episodes(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", lambda event: event.get("rows"))
    return repeat(place)


@spoils("values_differ")
def a_row_has_another_score_in_its_episode(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", lambda event: event.get("rows"))
    if place is None:
        return False
    (row,) = row_at(place)["rows"]
    row["score"] = number(float(row["score"]) + 1)
    return True


@spoils("values_differ")
def a_denied_field_is_out_in_an_episode(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", lambda event: event.get("rows"))
    if place is None:
        return False
    (row,) = row_at(place)["rows"]
    row["reading"]["fine"] = Number("1.0")
    return True


def is_kind(*kinds: str) -> Callable[[dict[str, Any]], object]:
    return lambda event: event["kind"] in kinds


@spoils("episodes_differ")
def an_episode_is_closed_twice(run: TrueRun, rng: Random) -> bool:
    return repeat(pick(run, rng, "anomalies", is_kind("closed")))


@spoils("episodes_differ")
def an_episode_is_opened_twice_the_second_time_without_rows(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", is_kind("opened"))
    if place is None:
        return False
    place[0].rows.append({name: value for name, value in row_at(place).items() if name != "rows"})
    return True


@spoils("episodes_differ")
def an_end_is_lost_and_the_series_has_another_episode(run: TrueRun, rng: Random) -> bool:
    opened = [row for piece in run.of("anomalies") for row in piece.rows if row["kind"] == "opened"]
    closed = {row["episode"] for piece in run.of("anomalies") for row in piece.rows if row["kind"] == "closed"}
    still_open = {(row["device"], row["series"]) for row in opened if row["episode"] not in closed}
    return remove(
        pick(
            run,
            rng,
            "anomalies",
            lambda event: event["kind"] == "closed" and (event["device"], event["series"]) in still_open,
        )
    )


@spoils("episodes_differ")
def all_events_are_of_one_episode(run: TrueRun, rng: Random) -> bool:
    events = [row for piece in run.of("anomalies") for row in piece.rows]
    for event in events:
        event["episode"] = "1"
    return len([event for event in events if event["kind"] == "opened"]) > 1


@spoils("episodes_differ")
def an_event_says_that_it_is_another_kind(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", bool)
    if place is None:
        return False
    event = row_at(place)
    event["kind"] = rng.choice([kind for kind in ("opened", "updated", "closed") if kind != event["kind"]])
    return True


@spoils("episodes_differ")
def an_event_counts_another_number_of_rows(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", bool)
    if place is None:
        return False
    row_at(place)["rows_total"] = Number(int(row_at(place)["rows_total"]) + rng.choice((-1, 1)))
    return True


@spoils("episodes_differ")
def an_event_is_of_another_series(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", lambda event: event.get("rows"))
    if place is None:
        return False
    row_at(place)[rng.choice(("device", "series"))] = "other"
    return True


@spoils("out_of_order")
def an_event_is_stored_before_the_one_it_follows(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "anomalies", is_kind("updated", "closed"))
    if place is None:
        return False
    later = row_at(place)
    earlier = [
        (other, index)
        for other, index in run.places("anomalies")
        if (other.spool, other.folder) == (place[0].spool, place[0].folder)
        and other.rows[index]["episode"] == later["episode"]
        and other.rows[index]["rows_total"] != later["rows_total"]
    ]
    if not earlier:
        return False
    other, index = rng.choice(earlier)
    place[0].rows[place[1]], other.rows[index] = other.rows[index], later
    return True


@spoils("values_differ")
def a_window_is_lost(run: TrueRun, rng: Random) -> bool:
    return remove(pick(run, rng, "insights", bool))


@spoils("values_differ")
def a_window_is_stored_twice(run: TrueRun, rng: Random) -> bool:
    return repeat(pick(run, rng, "insights", bool))


@spoils("values_differ")
def a_window_counts_another_number_of_rows(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "insights", bool)
    assert place is not None
    row_at(place)["rows"] = Number(int(row_at(place)["rows"]) + rng.choice((-1, 1)))
    return True


@spoils("values_differ")
def a_row_is_counted_in_another_window(run: TrueRun, rng: Random) -> bool:
    """So that the sum is right all the same."""
    place = pick(run, rng, "insights", lambda window: "late_rows" not in window)
    if place is None:
        return False
    window = row_at(place)
    other = pick(
        run,
        rng,
        "insights",
        lambda one: one is not window and (one["device"], one["series"]) == (window["device"], window["series"]),
    )
    if other is None or any("late_rows" in one for one in _windows_of_series(run, window)):
        return False
    window["rows"], row_at(other)["rows"] = (
        Number(int(window["rows"]) - 1),
        Number(int(row_at(other)["rows"]) + 1),
    )
    return True


@spoils("values_differ")
def a_window_comes_in_two_halves(run: TrueRun, rng: Random) -> bool:
    place = pick(run, rng, "insights", lambda window: int(window["rows"]) > 1)
    if place is None:
        return False
    window = row_at(place)
    place[0].rows.append({**window, "rows": Number(1), "late_rows": Number(0)})
    window["rows"] = Number(int(window["rows"]) - 1)
    return True


def _windows_of_series(run: TrueRun, window: dict[str, Any]) -> list[dict[str, Any]]:
    series = window["device"], window["series"]
    rows = [row for piece in run.of("insights") for row in piece.rows]
    return [row for row in rows if (row["device"], row["series"]) == series]
