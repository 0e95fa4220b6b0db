"""Whether batches read back are those that were made: no number left out, each linked to the one before. Pure."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from simulator.stored import Batch


def broken_batches(batches: Iterable[Batch]) -> list[str]:
    """A line for each thing that is wrong. All the batches must be of one destination for each lane."""
    sequences: dict[tuple[str, str], list[Batch]] = {}
    problems: list[str] = []
    for batch in batches:
        sequences.setdefault((batch.name.lane, batch.name.spool), []).append(batch)
        problems += _contradictions(batch)
    for (lane, spool), members in sorted(sequences.items()):
        ordered = sorted(members, key=lambda batch: batch.name.batch_no)
        if (first := ordered[0].name.batch_no) != 1:
            problems.append(f"{lane} of spool {spool} begins with batch {first}")
        if (previous := _previous(ordered[0])) is not None and first == 1:
            problems.append(f"{ordered[0].path} is the first and names {previous[:16]} before it")
        for before, batch in pairwise(ordered):
            problems += _broken_link(before, batch)
    return problems


def _contradictions(batch: Batch) -> Iterator[str]:
    """What a batch says of itself against what it is."""
    if batch.name.digest != batch.sha256[:16]:
        yield f"{batch.path} holds a body of SHA-256 {batch.sha256[:16]}"
    if batch.flaw:
        yield f"{batch.path}: {batch.flaw}"
    meta = batch.meta
    if meta is None:
        return
    if meta.sha256 != batch.sha256:
        yield f"{batch.path} says that its SHA-256 is {meta.sha256[:16]}, it is {batch.sha256[:16]}"
    if meta.rows != batch.lines:
        yield f"{batch.path} says that it has {meta.rows} rows, it has {batch.lines}"
    if (meta.spool, meta.batch_no) != (batch.name.spool, batch.name.batch_no):
        yield f"{batch.path} says that it is {meta.spool}-{meta.batch_no}"


def _broken_link(before: Batch, batch: Batch) -> Iterator[str]:
    step = batch.name.batch_no - before.name.batch_no
    if step != 1:
        yield f"{batch.path} follows batch {before.name.batch_no}"
    elif batch.meta is not None and batch.meta.previous_sha256 != before.sha256:
        named = (batch.meta.previous_sha256 or "none")[:16]
        yield f"{batch.path} names {named} as the one before it, that is {before.sha256[:16]}"


def _previous(batch: Batch) -> str | None:
    return None if batch.meta is None else batch.meta.previous_sha256
