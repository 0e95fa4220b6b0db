from collections.abc import Callable

import pytest
from msgspec.structs import replace

from contract.batch import BlobMeta, BlobName, compress, format_blob_name, metadata_of, sha256_hex
from simulator.chain import broken_batches
from simulator.stored import Batch, Storage

SPOOL = "0a1b"


def stored(lane: str = "readings", spool: str = SPOOL, batches: int = 3) -> list[Batch]:
    """A chain as an uploader makes it, read back."""
    storage = Storage()
    previous = None
    for number in range(1, batches + 1):
        body = compress(b'{"i":0}\n' * number)
        digest = sha256_hex(body)
        name = BlobName(lane, "s", "date=2026-11-23/hour=18", spool, number, digest[:16])  # type: ignore[arg-type]
        meta = BlobMeta("p", "m", spool, number, number, digest, previous)
        storage.add(format_blob_name(name), body, metadata_of(meta))
        previous = digest
    return storage.batches


def meta_with(batch: Batch, **changes: object) -> Batch:
    assert batch.meta is not None
    return Batch(batch.path, batch.name, replace(batch.meta, **changes), batch.lines, batch.sha256)


def test_chains_of_several_lanes_and_spools_hold() -> None:
    assert broken_batches([*stored(), *stored("anomalies"), *stored(spool="ff")]) == []


def test_batches_without_metadata_are_judged_by_their_names() -> None:
    bare = [Batch(batch.path, batch.name, None, batch.lines, batch.sha256) for batch in stored()]
    assert broken_batches(bare) == []
    assert len(broken_batches([bare[0], bare[2]])) == 1


Spoil = Callable[[list[Batch]], list[Batch]]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda chain: chain[1:], "readings of spool 0a1b begins with batch 2"),
        (lambda chain: [chain[0], chain[2]], "follows batch 1"),
        (lambda chain: [*chain, chain[2]], "follows batch 3"),
        (lambda chain: [meta_with(chain[0], previous_sha256="e" * 64), *chain[1:]], "is the first and names eeee"),
        (lambda chain: [*chain[:2], meta_with(chain[2], previous_sha256=None)], "names none as the one before it"),
        (lambda chain: [*chain[:2], meta_with(chain[2], previous_sha256="e" * 64)], "names eeeeeeeeeeeeeeee as"),
        (lambda chain: [*chain[:2], meta_with(chain[2], rows=7)], "says that it has 7 rows, it has 3"),
        (lambda chain: [*chain[:2], meta_with(chain[2], sha256="e" * 64)], "says that its SHA-256 is eeee"),
        (lambda chain: [*chain[:2], meta_with(chain[2], spool="ff")], "says that it is ff-3"),
        (
            lambda chain: [
                *chain[:2],
                Batch(chain[2].path, replace(chain[2].name, digest="e" * 16), None, 3, chain[2].sha256),
            ],
            "holds a body of SHA-256",
        ),
    ],
)
def test_a_broken_chain_is_told(spoil: Spoil, problem: str) -> None:
    (told,) = broken_batches(spoil(stored()))
    assert problem in told


def test_metadata_that_cannot_be_read_are_told() -> None:
    storage = Storage()
    body = compress(b'{"i":0}\n')
    name = BlobName("readings", "s", "date=2026-11-23/hour=18", SPOOL, 1, sha256_hex(body)[:16])
    storage.add(format_blob_name(name), body, {"rows": "1"})
    assert broken_batches(storage.batches) == [f"{format_blob_name(name)}: metadata lacks 'policy'"]
