"""System calls of a running module fail: some at random, or all of one kind for a while.

While a failure lasts the module names it, acknowledges nothing and stays; when it is over the module goes on by itself.
"""

import asyncio
from typing import Final

from simulator.local_site import EDGE_HUB
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.call_failures import FAILURES
from tests.chaos.tracing import Injection, NoStrace, ProcessGone, TracingRefused, count_calls, injecting
from tests.chaos.vitals import until_it_is_over, until_it_says

_SPREE_SECS = 5.0
_RECORD_SECS = 0.7
_EACH_SECS = 0.6
_FURTHEST_CALL = 12
_LASTS_SECS = 3.0
_BACK_SECS = 30.0
_MAY_END: Final = "a lock that stays, memory or a thread that is not there, a futex at whose failure libc aborts"


async def calls_fail_at_random(arena: Arena, part: str) -> None:
    """Again and again one call of the module fails, drawn from those that it makes."""
    calls = sorted(set(await recorded(arena, part)) & set(FAILURES))
    loop = asyncio.get_running_loop()
    until = loop.time() + _SPREE_SECS
    failed = 0
    while loop.time() < until:
        call = arena.rng.choice(calls)
        how = arena.rng.choice(FAILURES[call])
        number = arena.rng.randint(1, _FURTHEST_CALL)
        injected = await fail(arena, part, Injection(call, how, str(number)), secs=_EACH_SECS)
        arena.note(f"{part} {call} {how} at call {number}: {injected} injected")
        failed += injected
    _require(failed, part)


async def calls_fail_for_a_while(arena: Arena, part: str, call: str, how: str, reason: str) -> None:
    """Every such call fails; the module must say why meanwhile, and be well again soon after."""
    pid = await running(arena, part)
    try:
        async with injecting(pid, Injection(call, how, "1+")) as trace:
            await until_it_says(arena.site, part, reason)
            await asyncio.sleep(_LASTS_SECS)
    except (NoStrace, TracingRefused) as error:
        raise CellFailed(str(error)) from None
    arena.note(f"{part} {call} {how}: {trace.injected} injected, it said {reason}")
    await until_it_is_over(arena.site, part, reason)


async def hub_calls_fail_for_a_while(arena: Arena, call: str, how: str) -> None:
    """Every such call of edgeHub fails. Nobody asks it for its health; what counts is what becomes of the rows."""
    injected = await fail(arena, EDGE_HUB, Injection(call, how, "1+"), hold=_LASTS_SECS)
    arena.note(f"{EDGE_HUB} {call} {how}: {injected} injected")
    _require(injected, EDGE_HUB)


async def slow_disk(arena: Arena, part: str) -> None:
    """Every sync of the module takes as long as on a tired memory card."""
    millis = arena.rng.randint(50, 400)
    injected = await fail(arena, part, Injection("fdatasync", f"delay_enter={millis * 1000}", "1+"), hold=_SPREE_SECS)
    arena.note(f"{part}: {injected} syncs took {millis} ms more")
    _require(injected, part)


def _require(injected: int, part: str) -> None:
    if not injected:
        raise CellFailed(f"no call of {part} was made to fail: nothing was tested")


async def recorded(arena: Arena, part: str) -> dict[str, int]:
    try:
        return await count_calls(await running(arena, part), _RECORD_SECS)
    except (NoStrace, TracingRefused, ProcessGone) as error:
        raise CellFailed(str(error)) from None


async def fail(arena: Arena, part: str, injection: Injection, *, secs: float = 0.0, hold: float = 0.0) -> int:
    """Until a call has failed or `secs` are over, and for `hold` seconds; how many failed."""
    pid = await running(arena, part)
    try:
        async with injecting(pid, injection) as trace:
            await trace.wait_injected(secs)
            await asyncio.sleep(hold)
    except ProcessGone:
        return 0
    except (NoStrace, TracingRefused) as error:
        raise CellFailed(str(error)) from None
    return trace.injected


async def running(arena: Arena, part: str) -> int:
    await arena.until(lambda: arena.site.supervisor.pid(part) is not None, f"{part} runs", _BACK_SECS)
    pid = arena.site.supervisor.pid(part)
    if pid is None:
        raise CellFailed(f"{part} has ended as soon as it was started")
    return pid


def _cells(part: str) -> tuple[Cell, ...]:
    return (
        Cell(part, "calls_fail_at_random", lambda arena: calls_fail_at_random(arena, part), may_end=_MAY_END),
        Cell(
            part,
            "every_sync_fails",
            lambda arena: calls_fail_for_a_while(arena, part, "fdatasync", "error=EIO", "disk_error"),
        ),
        Cell(
            part,
            "every_write_says_full",
            lambda arena: calls_fail_for_a_while(arena, part, "pwrite64", "error=ENOSPC", "disk_full"),
        ),
        Cell(part, "slow_disk", lambda arena: slow_disk(arena, part)),
    )


_HUB_CELLS = (
    Cell(EDGE_HUB, "every_sync_fails", lambda arena: hub_calls_fail_for_a_while(arena, "fdatasync", "error=EIO")),
    Cell(
        EDGE_HUB, "every_write_says_full", lambda arena: hub_calls_fail_for_a_while(arena, "pwrite64", "error=ENOSPC")
    ),
)

CELLS: Final[tuple[Cell, ...]] = (*(cell for part in MODULES for cell in _cells(part)), *_HUB_CELLS)
