"""Every system call of a module fails in turn while rows flow; afterwards everything is stored once, unaltered.

    python -m tests.chaos.syscalls [--module scorer] [--secs 300] [--seed N]

For each call that the module makes in a cycle of its work, and each way in which it may fail (`call_failures`), the
first such call fails, then the second, and so on, until a whole cycle passes and there was none left to fail. The
module may die of it. It may not lose, duplicate, alter, or stop for good: after each way rows must flow again.
The order of the ways follows from the seed. With --secs it stops in time, and says how much of the way it came.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.local_site import LocalSite
from tests.chaos.arena import MODULES
from tests.chaos.call_failures import FAILURES, NOT_INJECTED
from tests.chaos.tracing import Injection, NoStrace, ProcessGone, TracingRefused, count_calls, injecting
from tests.e2e.pipeline import Feeder, pipeline, read_back, settle, train, verdict_of

_TIME_SCALE = 20.0
_FEED_PAUSE_SECS = 0.2
_BATCH_AGE_SECS = 0.3
_RECORD_SECS = 3.0
_BACK_SECS = 60.0
_LOOK_SECS = 0.05
_MESSAGES_PER_CYCLE = 2


class Wedged(Exception):
    """The module does not come back from what was done to it."""


@dataclass
class Tally:
    """What was done to one module."""

    module: str
    calls: int = 0
    ways: int = 0
    ways_done: int = 0
    injections: int = 0
    crashes: int = 0
    untouched: list[str] = field(default_factory=list)
    """Calls that the module makes and no table names."""

    def __str__(self) -> str:
        untouched = f" untouched={','.join(self.untouched)}" if self.untouched else ""
        return (
            f"{self.module}: calls={self.calls} ways={self.ways_done}/{self.ways} injections={self.injections}"
            f" crashes={self.crashes}{untouched}"
        )


async def flows(site: LocalSite, module: str) -> None:
    """Return when the module takes in fresh messages. Raises Wedged."""
    meter, counter = site.meter(module), f"edgeweir_{module}_received_messages_total"
    before: float | None = None
    try:
        async with asyncio.timeout(_BACK_SECS):
            while True:
                if await meter.read():
                    received = meter.total(counter)
                    if before is not None and received > before:
                        return
                    before = received if before is None else before
                await asyncio.sleep(0.05)
    except TimeoutError:
        what = "does not answer" if before is None else "takes nothing in"
        raise Wedged(f"{module} {what} any more; {site.last_line(module)}") from None


async def one_cycle(site: LocalSite, module: str) -> None:
    """Return when the module has done all it does: some messages, and for the uploader a batch brought to storage."""
    wanted = {f"edgeweir_{module}_received_messages_total": float(_MESSAGES_PER_CYCLE)}
    if module == "uploader":
        wanted["edgeweir_uploader_stored_batches_total"] = 1.0
    meter = site.meter(module)
    before: dict[str, float] | None = None
    while True:
        if await meter.read():
            now = {name: meter.total(name) for name in wanted}
            before = before or now
            if all(now[name] >= before[name] + more for name, more in wanted.items()):
                return
        await asyncio.sleep(_LOOK_SECS)


async def running_pid(site: LocalSite, module: str) -> int:
    """Raises Wedged when nobody starts it again."""
    try:
        async with asyncio.timeout(_BACK_SECS):
            while (pid := site.supervisor.pid(module)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Wedged(f"{module} is not started again; {site.last_line(module)}") from None
    return pid


async def fail_once(site: LocalSite, module: str, injection: Injection) -> int:
    """Let the call fail once, if it is made within a cycle; how many failed (threads count for themselves)."""
    pid = await running_pid(site, module)
    try:
        async with injecting(pid, injection) as trace:
            cycle = asyncio.create_task(one_cycle(site, module))
            failed = asyncio.create_task(trace.wait_injected(_BACK_SECS))
            try:
                await asyncio.wait({cycle, failed}, timeout=_BACK_SECS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cycle.cancel()
                failed.cancel()
    except ProcessGone:
        return 0
    return trace.injected


async def fail_each_in_turn(site: LocalSite, module: str, call: str, how: str, tally: Tally) -> None:
    """The first such call of a cycle fails, then the second, ... until a cycle passes untouched."""
    number = 0
    while True:
        number += 1
        # A cycle begins when all is well: connecting again is no part of it, or it would grow with every failure.
        await flows(site, module)
        starts = site.supervisor.starts(module)
        injected = await fail_once(site, module, Injection(call, how, str(number)))
        tally.injections += injected
        if site.supervisor.starts(module) > starts or site.supervisor.pid(module) is None:
            tally.crashes += 1
        if not injected:
            break
    await flows(site, module)


def ways_of(calls: Sequence[str]) -> list[tuple[str, str]]:
    return [(call, how) for call in calls for how in FAILURES.get(call, ())]


async def exhaust(
    site: LocalSite, module: str, rng: random.Random, *, until: float, only: str | None, say: Callable[[str], None]
) -> Tally:
    """Every way in which a call of this module may fail; stops early when the clock passes `until`."""
    counts = await count_calls(await running_pid(site, module), _RECORD_SECS)
    ways = ways_of(sorted(counts))
    rng.shuffle(ways)
    ways = [way for way in ways if only in (None, ":".join(way))]
    untouched = sorted(set(counts) - set(FAILURES) - set(NOT_INJECTED))
    tally = Tally(module, calls=sum(call in FAILURES for call in counts), ways=len(ways), untouched=untouched)
    say(f"{module}: {len(counts)} calls, {len(ways)} ways to fail")
    for call, how in ways:
        if time.monotonic() > until:
            break
        began, injections, crashes = time.monotonic(), tally.injections, tally.crashes
        await fail_each_in_turn(site, module, call, how, tally)
        tally.ways_done += 1
        say(
            f"  {call:16} {how:20} {tally.injections - injections:5} injections"
            f" {tally.crashes - crashes:3} crashes {time.monotonic() - began:6.1f} s"
        )
    return tally


async def exhaust_all(
    site: LocalSite, modules: Sequence[str], seed: int, secs: float, only: str | None, say: Callable[[str], None]
) -> list[Tally]:
    """One module after the other; each has its share of `secs`, and what the ones before it left."""
    began = time.monotonic()
    return [
        await exhaust(
            site,
            module,
            random.Random(f"{seed}/{module}"),
            until=began + secs / len(modules) * place,
            only=only,
            say=say,
        )
        for place, module in enumerate(modules, 1)
    ]


async def run(modules: Sequence[str], seed: int, secs: float, only: str | None, say: Callable[[str], None]) -> bool:
    """Whether everything that was sent is stored once, unaltered."""
    with tempfile.TemporaryDirectory(prefix="edgeweir-syscalls-") as folder:
        bundle = await train(Path(folder))
        async with pipeline(Path(folder) / "site", bundle, time_scale=_TIME_SCALE) as site:
            await site.set_desired("uploader", {"batch_max_age_secs": _BATCH_AGE_SECS})
            feeder = Feeder(site, pause_secs=_FEED_PAUSE_SECS)
            feeding = asyncio.create_task(feeder.run())
            try:
                tallies = await exhaust_all(site, modules, seed, secs, only, say)
            finally:
                feeder.stop()
                await feeding
            await settle(site)
            storage = await read_back(site)
        verdict = verdict_of(bundle, feeder.ledger, storage)
    for line in (*map(str, tallies), *verdict.problems):
        say(line)
    say(
        f"modules={len(tallies)} calls={sum(t.calls for t in tallies)}"
        f" injections={sum(t.injections for t in tallies)} crashes={sum(t.crashes for t in tallies)}"
        f" missing={verdict.missing} duplicated={verdict.duplicated} values_differ={verdict.values_differ}"
    )
    return verdict.intact


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.syscalls", description=__doc__)
    parser.add_argument("--module", action="append", choices=MODULES, help="this one only; may be repeated")
    parser.add_argument("--secs", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--way", help="only this way to fail, as fdatasync:error=EIO")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    modules = arguments.module or MODULES
    _say(f"seed {arguments.seed}; again: python -m tests.chaos.syscalls --seed {arguments.seed}")
    try:
        intact = asyncio.run(run(modules, arguments.seed, arguments.secs, arguments.way, _say))
    except (NoStrace, TracingRefused, Wedged) as error:
        _say(f"syscalls: {error}")
        return 1
    return 0 if intact else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
