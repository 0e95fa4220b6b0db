"""Processes that are killed, stopped, continued and asked to leave, at named steps and at any time."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from simulator.errors import UserError
from simulator.local_site import EDGE_HUB
from simulator.process import STOP_GRACE_SECS
from simulator.runtime.timing import ACK_TIMEOUT_SECS
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.sites import TIME_SCALE
from tests.e2e.kill_steps import STEPS_OF, NotReached, die_at, has_ended

PARTS: Final = (*MODULES, EDGE_HUB)
_STEP_SECS = 20.0
# Some steps come with each message, others once in a life or once in a second.
_OFTEN, _SELDOM = 12, 2

# All of edgeHub's steps, so that each round of cells passes every one of them.
HUB_STEPS: Final = {
    "clients connect": (_SELDOM, ("connection_accepted", "connection_bound", "session_saved", "session_granted")),
    "a message comes in": (_OFTEN, ("publish_received", "message_queued", "before_commit", "after_commit")),
    "a message is acknowledged": (_OFTEN, ("before_puback", "after_puback", "delivery_acknowledged")),
    "a message goes out": (_OFTEN, ("before_delivery", "after_delivery", "delivery_removed")),
    "it writes beside": (_SELDOM, ("twin_written", "twin_answered", "before_checkpoint", "after_checkpoint")),
}


async def sigkill_at_random(arena: Arena, part: str) -> None:
    """Several times, each time at some moment of the life that the last one began."""
    for _ in range(arena.rng.randint(2, 4)):
        await asyncio.sleep(arena.rng.uniform(0.1, 1.2))
        await kill(arena, part)


async def crash_loop(arena: Arena, part: str) -> None:
    """Three lives that end soon after they began: while it starts, opens its store, connects, or works."""
    for _ in range(3):
        await kill(arena, part)
        await asyncio.sleep(arena.rng.uniform(0.1, 2.0))
    await kill(arena, part)


async def sigkill_at_steps(arena: Arena, part: str) -> None:
    """At two or three of its steps, drawn anew for each cell."""
    await die_at_steps(arena, part, arena.rng.sample(STEPS_OF[part], arena.rng.randint(2, 3)), passes=3)


async def die_at_steps(arena: Arena, part: str, steps: Sequence[str], passes: int) -> None:
    """At each of these steps, in a drawn order, at one of the first `passes` of it."""
    drawn = [f"{step}:{arena.rng.randint(1, passes)}" for step in arena.rng.sample(steps, len(steps))]
    arena.note(f"{part} dies at {', '.join(drawn)}")
    try:
        await die_at(arena.site, part, drawn, secs=_STEP_SECS)
    except NotReached as error:
        # The part must not take its kill point along into the next cell.
        arena.site.supervisor.send_signal(part, signal.SIGKILL)
        raise CellFailed(str(error)) from None
    for _ in range(len(drawn) + 1):
        arena.killed(part)


async def stop_and_continue(arena: Arena, part: str) -> None:
    """SIGSTOP for longer than edgeHub waits for an acknowledgement, once or twice, then SIGCONT."""
    for _ in range(arena.rng.randint(1, 2)):
        secs = ACK_TIMEOUT_SECS / TIME_SCALE * arena.rng.uniform(1.1, 2.5)
        with stopped(arena, part):
            await asyncio.sleep(secs)
        await asyncio.sleep(arena.rng.uniform(0.2, 0.8))


async def sigterm_at_random(arena: Arena, part: str) -> None:
    """Asked to leave while it works, two or three times: it must go by itself, with 0, within a container's time."""
    for _ in range(arena.rng.randint(2, 3)):
        await until_connected(arena, part)
        await asyncio.sleep(arena.rng.uniform(0.0, 1.0))
        await terminate(arena, part)


async def sigkill_together(arena: Arena, parts: Sequence[str]) -> None:
    """Two or three at the same moment, twice."""
    for _ in range(2):
        await asyncio.sleep(arena.rng.uniform(0.2, 1.2))
        chosen = arena.rng.sample(parts, min(len(parts), arena.rng.randint(2, 3)))
        for part in chosen:
            await arena.runs(part)
        starts = {part: arena.site.supervisor.starts(part) for part in chosen}
        for part in chosen:
            if arena.site.supervisor.send_signal(part, signal.SIGKILL):
                arena.killed(part)
        for part in chosen:
            await restarted(arena, part, starts[part])


@contextlib.contextmanager
def stopped(arena: Arena, part: str) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end, whatever happens between them. Raises CellFailed when it does not run."""
    if not arena.site.supervisor.send_signal(part, signal.SIGSTOP):
        raise CellFailed(f"{part} does not run: there is nothing to stop")
    arena.note(f"stopped {part}")
    try:
        yield
    finally:
        arena.site.supervisor.send_signal(part, signal.SIGCONT)


async def kill(arena: Arena, part: str) -> None:
    """SIGKILL as soon as it runs, and wait until edgeAgent's stand-in has started it again."""
    await arena.runs(part)
    starts = arena.site.supervisor.starts(part)
    if arena.site.supervisor.send_signal(part, signal.SIGKILL):
        arena.killed(part)
    await restarted(arena, part, starts)


async def terminate(arena: Arena, part: str) -> None:
    """SIGTERM as soon as it runs. Raises CellFailed when it does not end with 0 in time."""
    supervisor = arena.site.supervisor
    await arena.runs(part)
    start, clock = supervisor.starts(part), asyncio.get_running_loop().time
    began = clock()
    supervisor.send_signal(part, signal.SIGTERM)
    await arena.until(lambda: has_ended(arena.site, part, start), f"{part} leaves on SIGTERM", STOP_GRACE_SECS)
    arena.note(f"{part} left on SIGTERM in {clock() - began:.2f} s")
    if supervisor.exit_code(part) != 0:
        raise CellFailed(f"{part} ended with {supervisor.exit_code(part)} on SIGTERM; {arena.site.last_line(part)}")
    await restarted(arena, part, start)


async def restarted(arena: Arena, part: str, starts: int) -> None:
    await arena.until(lambda: arena.site.supervisor.starts(part) > starts, f"{part} is started again")


async def until_connected(arena: Arena, part: str) -> None:
    """The module is connected; edgeHub itself answers. Raises UserError when it never is."""
    if part == EDGE_HUB:
        await until_hub_answers(arena)
        return
    async with asyncio.timeout(30):
        while part not in await modules_there(arena):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)


async def until_hub_answers(arena: Arena) -> None:
    for attempt in itertools.count():
        try:
            await arena.site.control.stats()
            return
        except UserError:
            if attempt > 300:
                raise
            await asyncio.sleep(0.1)


async def modules_there(arena: Arena) -> set[str]:
    """Those that are connected; none while edgeHub does not answer."""
    try:
        return await arena.site.connected_modules()
    except UserError:
        return set()


CELLS: Final = (
    *(Cell(part, "sigkill at random times", partial(sigkill_at_random, part=part)) for part in PARTS),
    *(Cell(part, "crash loop", partial(crash_loop, part=part)) for part in PARTS),
    *(Cell(part, "sigkill at drawn steps", partial(sigkill_at_steps, part=part)) for part in MODULES),
    *(
        Cell(EDGE_HUB, f"sigkill while {name}", partial(die_at_steps, part=EDGE_HUB, steps=steps, passes=passes))
        for name, (passes, steps) in HUB_STEPS.items()
    ),
    *(Cell(part, "sigstop beyond the acknowledge time-out", partial(stop_and_continue, part=part)) for part in PARTS),
    *(Cell(part, "sigterm at random times", partial(sigterm_at_random, part=part)) for part in PARTS),
    *(
        Cell("+".join(parts), "sigkill at the same moment", partial(sigkill_together, parts=parts))
        for parts in (MODULES, ("scorer", EDGE_HUB), ("anomaly_router", "uploader", EDGE_HUB))
    ),
)
