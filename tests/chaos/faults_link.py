"""Each link of the site, broken in each of toxiproxy's eight ways while connections are open and rows go through.

A toxic stays for a few seconds, so it also meets the connections that are made because of it: cut TLS handshakes, a
subscription that is never answered, an upload of which half arrives.
"""

import asyncio
import contextlib
import math
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, TypedDict

from simulator.fault_proxy import (
    Bandwidth,
    Down,
    FaultProxy,
    Latency,
    LimitData,
    LoseResponse,
    Request,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)
from simulator.fault_proxy.http_watch import Loss
from simulator.fault_proxy.toxics import STREAMS, Stream
from simulator.links import DEVICES, STORAGE
from simulator.local_site import EDGE_HUB
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.faults_process import kill

_LASTS_SECS: Final = (3.0, 6.0)
_ALL_AT_ONCE_SECS: Final = 3.0
_CLOSINGS: Final = 3
_PUTS_SECS: Final = 20.0
_TOKEN_SECS: Final = 4.0

# Who can be made to close the connections of a link, and on which of its streams that travels. Azurite is never killed.
_ENDS: Final[dict[str, tuple[tuple[str, Stream], ...]]] = {
    DEVICES: ((EDGE_HUB, "downstream"),),
    **{module: ((module, "upstream"), (EDGE_HUB, "downstream")) for module in MODULES},
    STORAGE: (("uploader", "upstream"),),
}

Draw = Callable[[random.Random], Toxic]


def latency(rng: random.Random) -> Toxic:
    return Latency(latency=rng.uniform(50, 600), jitter=rng.uniform(0, 300), **_applies_to(rng))


def down(rng: random.Random) -> Toxic:
    return Down()


def bandwidth(rng: random.Random) -> Toxic:
    return Bandwidth(rate=_log_uniform(rng, 1, 60), **_applies_to(rng))


def slow_close(rng: random.Random) -> Toxic:
    """Says nothing as long as nobody closes a connection: `close_slowly` sees to it."""
    return SlowClose(delay=rng.uniform(500, 4000), **_applies_to(rng))


def timeout(rng: random.Random) -> Toxic:
    """Half of them silent for as long as they last, and closed at their end."""
    return Timeout(timeout=rng.choice((0.0, rng.uniform(100, 2500))), **_applies_to(rng))


def reset_peer(rng: random.Random) -> Toxic:
    return ResetPeer(timeout=rng.choice((0.0, rng.uniform(1, 1000))), **_applies_to(rng))


def slicer(rng: random.Random) -> Toxic:
    size = rng.randint(20, 400)
    return Slicer(average_size=size, size_variation=size // 2, delay=rng.uniform(0, 1500), **_applies_to(rng))


def limit_data(rng: random.Random) -> Toxic:
    """From within the first record of a handshake to some messages later."""
    return LimitData(bytes=round(_log_uniform(rng, 1, 40_000)), **_applies_to(rng))


TOXICS: Final[tuple[Draw, ...]] = (latency, down, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data)


class _Applies(TypedDict):
    stream: Stream
    toxicity: float


def _applies_to(rng: random.Random) -> _Applies:
    return {"stream": rng.choice(STREAMS), "toxicity": rng.choice((1.0, 1.0, 0.5))}


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


@contextlib.contextmanager
def toxic_on(arena: Arena, link: str, toxic: Toxic) -> Iterator[FaultProxy]:
    proxy = arena.site.links[link]
    arena.note(f"{link}: {toxic}")
    proxy.add(toxic)
    try:
        yield proxy
    finally:
        proxy.remove(toxic.name)
        changes = proxy.changes(toxic.name)
        arena.note(f"{link}: {toxic.name} is over; it changed {changes} events, {proxy.accepted} connections so far")


async def break_link(arena: Arena, link: str, draw: Draw) -> None:
    """One toxic for some seconds, on connections that are open and on those that come.

    If nothing went through that it could change, there is one more, a harsher one. Raises CellFailed after that.
    """
    toxic = _drawn(arena, link, draw)
    if isinstance(toxic, Down):
        await connected(arena, link)
    for attempt in (toxic, harsher(toxic)):
        with toxic_on(arena, link, attempt) as proxy:
            await asyncio.sleep(arena.rng.uniform(*_LASTS_SECS))
        if proxy.changes(attempt.name):
            return
    raise CellFailed(f"{toxic.name} changed nothing on {link}")


def harsher(toxic: Toxic) -> Toxic:
    """Of all connections, and of every byte."""
    match replace(toxic, toxicity=1.0):
        case LimitData() as limit:
            return replace(limit, bytes=0)
        case Slicer() as slices:
            return replace(slices, average_size=2, size_variation=1)
        case other:
            return other


def _drawn(arena: Arena, link: str, draw: Draw) -> Toxic:
    toxic = draw(arena.rng)
    # Of the one connection that a link of ours mostly has, half could be none: then the cell would do nothing.
    return toxic if link == DEVICES else replace(toxic, toxicity=1.0)


async def close_slowly(arena: Arena, link: str) -> None:
    """Who is at one end dies. The other hears of it late, and meets its next life before the old connection is over.

    By SIGKILL: who leaves in order says goodbye first, and then it is the other end that closes. Who dies with bytes
    unread resets its connections, and nothing is slow: then all is done again. Raises CellFailed after some times.
    """
    for _ in range(_CLOSINGS):
        closings = [
            await _close_slowly(arena, link, part, stream)
            for part, stream in arena.rng.sample(_ENDS[link], len(_ENDS[link]))
        ]
        if any(closings):
            return
    raise CellFailed(f"no connection of {link} was closed slowly")


async def _close_slowly(arena: Arena, link: str, part: str, stream: Stream) -> int:
    """How many ends of connections came late."""
    toxic = SlowClose(delay=arena.rng.uniform(500, 4000), stream=stream)
    with toxic_on(arena, link, toxic) as proxy:
        await asyncio.sleep(arena.rng.uniform(0.1, 1.0))
        await kill(arena, part)
        await asyncio.sleep(arena.rng.uniform(1.0, 3.0))
    return proxy.changes(toxic.name)


async def break_all_links(arena: Arena) -> None:
    """A toxic of its own on each link, all at once."""
    with contextlib.ExitStack() as stack:
        for link in arena.site.links:
            stack.enter_context(toxic_on(arena, link, _drawn(arena, link, arena.rng.choice(TOXICS))))
        await asyncio.sleep(_ALL_AT_ONCE_SECS)


async def flap(arena: Arena, link: str) -> None:
    """Down and up again every few tenths of a second: most connections live only as far as a handshake or a CONNECT."""
    await connected(arena, link)
    until = asyncio.get_running_loop().time() + arena.rng.uniform(*_LASTS_SECS)
    closed = 0
    while asyncio.get_running_loop().time() < until:
        with toxic_on(arena, link, Down()) as proxy:
            await asyncio.sleep(arena.rng.uniform(0.02, 0.2))
        closed += proxy.changes("down")
        await asyncio.sleep(_log_uniform(arena.rng, 0.02, 1.0))
    if not closed:
        raise CellFailed(f"no connection of {link} was closed")


async def connected(arena: Arena, link: str) -> None:
    proxy = arena.site.links[link]
    await arena.until(lambda: proxy.open_connections, f"a connection on {link}")


async def silence(arena: Arena, link: str) -> None:
    """Open connections die without a word, as behind a firewall that forgot them: only time-outs can tell."""
    proxy = arena.site.links[link]
    await connected(arena, link)
    accepted = proxy.accepted
    arena.note(f"{link}: {proxy.open_connections} open connections carry nothing any more")
    proxy.silence()
    await arena.until(lambda: proxy.accepted > accepted, f"a new connection on {link}")


async def hang_storage(arena: Arena) -> None:
    """Connections are taken, requests arrive nowhere, answers neither: nothing moves, nothing closes."""
    with contextlib.ExitStack() as stack:
        toxics = [Timeout(timeout=0, stream=stream) for stream in STREAMS]
        for toxic in toxics:
            proxy = stack.enter_context(toxic_on(arena, STORAGE, toxic))
        await arena.until(lambda: any(proxy.changes(toxic.name) for toxic in toxics), "something is held", _PUTS_SECS)
        await asyncio.sleep(arena.rng.uniform(*_LASTS_SECS))


async def lose_put_responses(arena: Arena, then: Loss) -> None:
    """Storage has the blob, the uploader never hears of it. Chosen are some of the next PUTs of blobs.

    After a silence only one: the uploader waits for its whole time-out until it sends the next.
    """
    proxy = arena.site.links[STORAGE]
    before = len(proxy.http.lost)
    chosen = arena.rng.sample(range(1, 5), 1 if then == "silent" else arena.rng.randint(1, 3))
    arena.note(f"storage: the responses of PUTs {sorted(chosen)} are lost ({then})")
    for nth in chosen:
        proxy.lose_response(LoseResponse(matches=is_put_of_blob, nth=nth, then=then))
    try:
        await arena.until(
            lambda: len(proxy.http.lost) >= before + len(chosen), "the responses that were to be lost", _PUTS_SECS
        )
    finally:
        proxy.http.clear_rules()


def is_put_of_blob(request: Request) -> bool:
    return request.method == "PUT" and request.header("x-ms-blob-type") == "BlockBlob"


async def take_over_slowly(arena: Arena, module: str) -> None:
    """The token is renewed again and again, over a link on which each answer takes its time."""
    site = arena.site
    await restart_with(arena, module, {"EDGEWEIR_SAS_TTL_SECS": f"{_TOKEN_SECS:g}"})
    try:
        await site.wait_until_connected()
        delay = Latency(latency=arena.rng.uniform(100, 400), jitter=100, stream=arena.rng.choice(STREAMS))
        with toxic_on(arena, module, delay) as proxy:
            accepted = proxy.accepted
            await arena.until(lambda: proxy.accepted >= accepted + 2, f"two new tokens of {module}")
    finally:
        await restart_with(arena, module, {})


async def restart_with(arena: Arena, module: str, environment: dict[str, str]) -> None:
    site = arena.site
    site.module_env[module] = environment
    starts = site.supervisor.starts(module)
    arena.note(f"{module} is stopped (SIGTERM), to start with {environment or 'its own environment'}")
    await arena.until(lambda: site.supervisor.send_signal(module, signal.SIGTERM), f"{module} is there to be stopped")
    await arena.until(lambda: site.supervisor.starts(module) > starts, f"{module} starts again")


PART_OF: Final = {
    DEVICES: "devices-edgeHub",
    **{module: f"{module}-edgeHub" for module in MODULES},
    STORAGE: "uploader-storage",
}
CELLS: Final[tuple[Cell, ...]] = (
    *(
        Cell(part, draw.__name__, partial(break_link, link=link, draw=draw))
        for link, part in PART_OF.items()
        for draw in TOXICS
        if draw is not slow_close
    ),
    *(Cell(part, "slow_close", partial(close_slowly, link=link)) for link, part in PART_OF.items()),
    *(Cell(part, "flapping", partial(flap, link=link)) for link, part in PART_OF.items()),
    *(Cell(PART_OF[link], "goes_silent", partial(silence, link=link)) for link in (*MODULES, STORAGE)),
    *(Cell(PART_OF[module], "takeover_in_latency", partial(take_over_slowly, module=module)) for module in MODULES),
    Cell(PART_OF[STORAGE], "hangs", hang_storage),
    Cell(PART_OF[STORAGE], "response_lost_reset", partial(lose_put_responses, then="reset")),
    Cell(PART_OF[STORAGE], "response_lost_silent", partial(lose_put_responses, then="silent")),
    Cell("all-links", "everything_at_once", break_all_links),
)
