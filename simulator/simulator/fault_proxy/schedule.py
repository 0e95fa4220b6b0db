"""A script of faults: at which second which toxic comes or goes, and which responses are lost from then on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.fault_proxy.clock import Clock, SystemClock
from simulator.fault_proxy.http_watch import LoseResponse
from simulator.fault_proxy.proxy import FaultProxy
from simulator.fault_proxy.toxics import Toxic


@dataclass(frozen=True)
class Add:
    """Seconds are counted from the start of the schedule."""

    at_secs: float
    toxic: Toxic


@dataclass(frozen=True)
class Remove:
    at_secs: float
    name: str


@dataclass(frozen=True)
class Lose:
    """Only on a proxy that looks at HTTP."""

    at_secs: float
    rule: LoseResponse


Step = Add | Remove | Lose


async def run_schedule(
    proxy: FaultProxy,
    steps: Iterable[Step],
    clock: Clock | None = None,
    *,
    passed_over: Callable[[Step], None] | None = None,
) -> None:
    """Takes the steps in order of their time (given order within one instant); ends with the last one.

    A step can be impossible when somebody else adds and removes toxics too: then `passed_over` is told of it and the
    schedule goes on. Without `passed_over` it raises ValueError (the name is there) or KeyError (it is not).
    """
    clock = SystemClock() if clock is None else clock
    start = clock.now()
    for step in sorted(steps, key=lambda step: step.at_secs):
        while (wait := start + step.at_secs - clock.now()) > 0:
            await clock.sleep(wait)
        try:
            _take(proxy, step)
        except (ValueError, KeyError):
            if passed_over is None:
                raise
            passed_over(step)


def _take(proxy: FaultProxy, step: Step) -> None:
    match step:
        case Add(toxic=toxic):
            proxy.add(toxic)
        case Remove(name=name):
            proxy.remove(name)
        case Lose(rule=rule):
            proxy.lose_response(rule)
