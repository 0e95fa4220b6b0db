"""The pure part: what each toxic does to the time and the bytes of one direction."""

import pytest

from simulator.fault_proxy import Bandwidth, Down, Latency, LimitData, ResetPeer, Slicer, SlowClose, Timeout, Toxic
from simulator.fault_proxy.link import Link
from simulator.fault_proxy.toxics import Cut, End, Event, Send

FOREVER = 1e9


def link(*toxics: Toxic, seed: int = 1, connection: int = 1) -> Link:
    link = Link(seed, connection, "downstream")
    for toxic in toxics:
        link.add(toxic, 0)
    return link


def everything(link: Link, until: float = FOREVER) -> list[Event]:
    events = []
    while (event := link.give(until)) is not None:
        events.append(event)
    return events


def sent(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Send))


def test_without_toxics_all_goes_at_once_and_in_order() -> None:
    plain = link()
    plain.take(1, b"a")
    plain.take(1, b"b")
    plain.end(1)
    assert everything(plain, until=1) == [Send(1, b"a"), Send(1, b"b"), End(1)]


def test_latency_delays_each_piece_and_the_end_keeps_its_place() -> None:
    slow = link(Latency(latency=1500))
    slow.take(0, b"a")
    slow.take(1, b"b")
    slow.end(1)
    assert everything(slow, until=1.4) == []
    assert everything(slow) == [Send(1.5, b"a"), Send(2.5, b"b"), End(2.5)]


def test_jitter_spreads_around_the_latency_and_never_reorders() -> None:
    slow = link(Latency(latency=100, jitter=50))
    for i in range(200):
        slow.take(i * 0.01, bytes([i]))
    events = everything(slow)
    assert sent(events) == bytes(range(200))
    delays = [event.at - i * 0.01 for i, event in enumerate(events)]
    assert min(delays) >= 0.05
    assert max(delays) <= 0.15 + 1e-9
    assert len({round(delay, 6) for delay in delays}) > 50


def test_bandwidth_takes_as_long_as_its_rate_says() -> None:
    thin = link(Bandwidth(rate=2))
    thin.take(10, bytes(5000))
    thin.take(10.5, bytes(1000))
    events = everything(thin)
    assert isinstance(events[0], Send)
    assert events[0].at == pytest.approx(10.1)
    assert len(events[0].data) == 200
    assert len(sent(events)) == 6000
    assert events[-1].at == pytest.approx(13)


def test_bandwidth_that_was_idle_owes_nothing() -> None:
    thin = link(Bandwidth(rate=1))
    thin.take(0, bytes(100))
    thin.take(50, bytes(100))
    assert [event.at for event in everything(thin)] == [pytest.approx(0.1), pytest.approx(50.1)]


def test_slow_close_delays_the_end_alone() -> None:
    slow = link(SlowClose(delay=3000))
    slow.take(1, b"a")
    slow.end(1)
    assert everything(slow) == [Send(1, b"a"), End(4)]


def test_a_timeout_loses_data_and_closes_in_time() -> None:
    silent = link(Timeout(timeout=2000))
    silent.take(1, b"a")
    assert everything(silent, until=1.9) == []
    assert everything(silent) == [Cut(2)]


def test_a_timeout_of_zero_closes_only_when_it_is_removed() -> None:
    silent = link(Timeout(timeout=0))
    silent.take(1, b"a")
    assert everything(silent) == []
    silent.remove("timeout_downstream", 7)
    assert everything(silent) == [Cut(7)]


def test_reset_peer_loses_the_first_data_and_resets_after_its_time() -> None:
    cut = link(ResetPeer(timeout=500))
    assert cut.next_at is None
    cut.take(1, b"a")
    cut.take(1.2, b"b")
    assert everything(cut) == [Cut(1.5, reset=True)]


def test_limit_data_passes_exactly_so_many_bytes_and_then_closes() -> None:
    short = link(LimitData(bytes=5))
    for at, data in enumerate((b"abc", b"def", b"ghi")):
        short.take(at, data)
    assert everything(short) == [Send(0, b"abc"), Send(1, b"de"), Cut(1)]


def test_the_slicer_cuts_into_sizes_in_its_bounds_with_its_delay_between() -> None:
    slicer = link(Slicer(average_size=20, size_variation=5, delay=1000))
    data = bytes(range(250)) * 4
    slicer.take(0, data)
    slicer.end(0)
    *pieces, end = everything(slicer)
    assert sent(pieces) == data
    sizes = [len(piece.data) for piece in pieces if isinstance(piece, Send)]
    assert len(sizes) >= 1000 / 25
    assert max(sizes) <= 25
    assert len(set(sizes)) > 1
    assert [piece.at for piece in pieces] == pytest.approx([i * 0.001 for i in range(len(pieces))])
    assert isinstance(end, End)
    assert end.at == pytest.approx(len(pieces) * 0.001)


def test_toxics_work_one_after_the_other() -> None:
    both = link(LimitData(bytes=2), Latency(latency=1000))
    both.take(0, b"abc")
    assert everything(both) == [Send(1, b"ab"), Cut(1)]


def test_a_toxic_of_the_other_direction_does_nothing() -> None:
    free = link(Latency(latency=1000, stream="upstream"), Down())
    free.take(0, b"a")
    assert everything(free) == [Send(0, b"a")]


def test_removing_a_toxic_lets_go_what_it_held_in_order() -> None:
    slow = link(Latency(latency=60_000))
    slow.take(0, b"a")
    slow.take(1, b"b")
    assert slow.queued_bytes == 2
    slow.remove("latency_downstream", 2)
    slow.take(2, b"c")
    assert sent(everything(slow, until=2)) == b"abc"
    assert slow.queued_bytes == 0


@pytest.mark.parametrize(
    ("toxic", "changed"),
    [
        (Latency(latency=5), 1),
        (Latency(latency=0), 0),
        (Bandwidth(rate=1), 1),
        (Slicer(average_size=1), 1),
        (Slicer(average_size=100), 0),
        (LimitData(bytes=100), 0),
        (LimitData(bytes=1), 1),
        (Timeout(timeout=0), 1),
        (ResetPeer(), 1),
        (SlowClose(delay=9), 0),
    ],
)
def test_a_toxic_is_counted_when_it_changes_what_goes_through(toxic: Toxic, changed: int) -> None:
    told: list[str] = []
    one = Link(1, 1, "downstream", told.append)
    one.add(toxic, 0)
    one.take(0, b"some")
    assert told == [toxic.name] * changed


def test_a_link_that_is_reseeded_draws_as_one_made_so() -> None:
    used = link(Latency(latency=1), seed=1, connection=70)
    used.reseed(9, 2)
    for each in (used, fresh := link(seed=9, connection=2)):
        each.add(Latency(latency=500, jitter=400, name="late"), 0)
        each.remove("latency_downstream", 0)
        each.take(0, b"x")
    assert used.next_at == fresh.next_at


def test_toxicity_takes_its_share_of_connections_and_the_same_ones_for_a_seed() -> None:
    def taken(seed: int) -> list[int]:
        links = {n: link(Latency(latency=1, toxicity=0.3), seed=seed, connection=n) for n in range(1000)}
        for one in links.values():
            one.take(0, b"a")
        return [n for n, one in links.items() if one.next_at != 0]

    assert 240 < len(taken(1)) < 360
    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_a_toxicity_of_zero_is_never_and_of_one_always() -> None:
    for toxicity, at in ((0.0, 0), (1.0, 1)):
        for connection in range(50):
            one = link(Latency(latency=1000, toxicity=toxicity), connection=connection)
            one.take(0, b"a")
            assert one.next_at == at


def test_names_are_those_of_toxiproxy() -> None:
    toxics = [
        Latency(latency=1),
        Down(),
        Bandwidth(rate=1),
        SlowClose(delay=1),
        Timeout(timeout=1),
        ResetPeer(),
        Slicer(average_size=1),
        LimitData(bytes=1),
    ]
    kinds = {"latency", "down", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"}
    assert {toxic.type for toxic in toxics} == kinds
    assert Latency(latency=1).name == "latency_downstream"
    assert ResetPeer(stream="upstream").name == "reset_peer_upstream"
    assert ResetPeer(name="mine").name == "mine"


def test_attributes_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="toxicity"):
        Latency(latency=1, toxicity=1.1)
    with pytest.raises(ValueError, match="rate"):
        Bandwidth(rate=0)
    with pytest.raises(ValueError, match="latency"):
        Latency(latency=-1)
    with pytest.raises(ValueError, match="size_variation"):
        Slicer(average_size=5, size_variation=5)
    with pytest.raises(ValueError, match="toxicity"):
        Down(toxicity=0.5)
