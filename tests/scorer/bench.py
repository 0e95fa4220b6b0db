"""A scorer on a bench, and what it emitted as rows."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contract.messages import Rejected, RejectedPart, ScoredRow, Scores, decode
from edge_module.testing import Bench, Result
from scorer.scorer import Scorer
from scorer.settings import Settings
from tests.scorer.models import bundle_files, write_folder


def make_bench(
    folder: Path, files: Mapping[str, bytes] | None = None, *, settings: Mapping[str, object] | None = None
) -> Bench[Settings]:
    """A new scorer whose config folder holds the bundle as models/current; no bundle when `files` is empty."""
    config, state = folder / "config", folder / "state"
    config.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    files = bundle_files() if files is None else files
    if files:
        write_folder(dict(files), config / "models" / "current")
    return Bench(Scorer, state, settings=settings, config_dir=config)


def reading(t: float | None, a: float = 1.0, b: float = 2.0, machine: str = "m", **more: object) -> dict[str, object]:
    return {"t": t, "machine": machine, "a": a, "b": b, **more}


def send(bench: Bench[Settings], readings: object, message_id: str, **options: Any) -> Result:
    return bench.feed(json.dumps(readings).encode(), message_id=message_id, **options)


def scored(results: Result | Iterable[Result]) -> list[ScoredRow]:
    if isinstance(results, Result):
        results = [results]
    return [
        row
        for result in results
        for message in result.emitted
        if message.output == "scores"
        for run in decode(Scores, message.body).runs
        for row in run.rows
    ]


def rejected(result: Result) -> list[RejectedPart]:
    return [
        part
        for message in result.emitted
        if message.output == "rejected"
        for part in decode(Rejected, message.body).rows
    ]
