"""What a scorer and a router are given before, during and after a power cut."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from anomaly_router.router import AnomalyRouter
from edge_module import Incoming
from edge_module.testing import Bench, ManualClock
from scorer.scorer import Scorer
from tests.anomaly_router.scores import POLICY, row, scores
from tests.chaos.cut_runs import MakeBench, Step
from tests.scorer.bench import reading
from tests.scorer.models import bundle_files, write_folder

# Longer than edge_module keeps what edgeHub has acknowledged, so that the outbox is pruned on the way.
_LONG_PAUSE_SECS: Final = 150.0
# Idle time is running time, which begins anew with each start: what closes by it may come out otherwise, and rightly.
_ROUTER_SETTINGS: Final[Mapping[str, object]] = {
    "episode_close_after_rows": 3,
    "episode_idle_secs": 1e6,
    "insight_window_secs": 60,
    "insight_idle_secs": 86_400,
}


def scorer_bench(config: Path) -> MakeBench:
    """`config` is filled with a model bundle; it is read only."""
    write_folder(dict(bundle_files()), config / "models" / "current")
    return _maker(Scorer, config, {})


def router_bench(config: Path) -> MakeBench:
    config.mkdir(parents=True, exist_ok=True)
    (config / "policy.yaml").write_text(POLICY)
    return _maker(AnomalyRouter, config, _ROUTER_SETTINGS)


def _maker(make_module: Callable[[], Any], config: Path, settings: Mapping[str, object]) -> MakeBench:
    def make(state: Path, clock: ManualClock, boot_id: str) -> Bench[Any]:
        return Bench(make_module, state, settings=settings, config_dir=config, clock=clock, boot_id=boot_id)

    return make


def scorer_steps(messages: int = 10) -> list[Step]:
    """Readings of two machines in arrays; one message that cannot be read; ticks, and one long pause."""
    steps: list[Step] = []
    at = 0.0
    for number in range(messages):
        at += 1.0
        rows = [reading(at + i / 10, a=number + i, machine=f"m-{number % 2}") for i in range(3)]
        body = b"[not json" if number == messages // 2 else json.dumps(rows).encode()
        steps.append(Step(at, _telemetry(f"t-{number}", body)))
        if number % 3 == 2:
            at += _LONG_PAUSE_SECS if number == 5 else 1.0
            steps.append(Step(at))
    return [*steps, Step(at + 2.0)]


def router_steps(messages: int = 10) -> list[Step]:
    """Scores that open and close episodes and minutes; the scorer's numbers on them, so that a hole would show."""
    steps: list[Step] = []
    at = 0.0
    for number in range(messages):
        at += 1.0
        rows = [
            row(i, secs=25 * number + i, anomaly=(number + i) % 5 < 2, series=f"pump-{i % 2}", score=0.1 * number + i)
            for i in range(4)
        ]
        steps.append(Step(at, _scores(number + 1, scores(*rows, message=f"m-{number}"))))
        if number % 3 == 2:
            at += _LONG_PAUSE_SECS if number == 5 else 1.0
            steps.append(Step(at))
    return [*steps, Step(at + 2.0)]


def _telemetry(name: str, body: bytes) -> Incoming:
    return Incoming(
        input="telemetry",
        body=body,
        device="device-1",
        message_id=name,
        content_type="application/json",
        content_encoding="utf-8",
    )


def _scores(number: int, body: bytes) -> Incoming:
    return Incoming(
        input="scores",
        body=body,
        properties={"epoch": "of-the-scorer", "output": "scores", "n": str(number)},
        device="edge",
        module="scorer",
        message_id=f"s-{number}",
        content_type="application/json",
        content_encoding="utf-8",
    )
