"""The judge of a run: what devices tried, against what is stored. Pure.

Promised messages are stored exactly once, attempted ones at most once and then whole, never-sent ones not at all
(`simulator.ledger`). In which order they arrived is found from storage and must be one that the devices' own calls
allow (`simulator.arrival`). Over that order an undisturbed computation says what each row must look like
(`simulator.reference`), and everything stored is compared with it (`simulator.oracle`). The batches must be a chain
without a gap (`simulator.chain`), and the requests that wrote them must have created each blob once
(`simulator.writes`).

What it does not see: two orders that differ only in what lies in different hour folders are not told apart, so that the
one by first attempts is taken. That matters for an attempted message which arrives late and across an hour; whoever
sends should keep those within one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from contract.batch import UNKNOWN_FOLDER, escape_site, hour_folder
from contract.bundle import Bundle
from contract.timestamps import parse_timestamp
from simulator.arrival import find_arrival
from simulator.chain import broken_batches
from simulator.episode_events import misplaced_events
from simulator.fault_proxy import Exchange
from simulator.ledger import Ledger, Sent
from simulator.oracle import Expected, Verdict, judge, row_id
from simulator.reference import Reference
from simulator.stored import Batch, Storage
from simulator.writes import overwrites

# Later than any row: whether a time was in the far future when it came is not to be told from what is stored.
_END_OF_TIME = 2**62


def judge_run(
    ledger: Ledger,
    storage: Storage,
    bundle: Bundle,
    policy_text: str,
    *,
    policy_hash: str | None = None,
    faults_ended_at: float | None = None,
    writes: Iterable[Exchange] = (),
    insights: bool = False,
    chain: bool = True,
) -> Verdict:
    """The verdict on what `storage` holds, which must be of the ledger's devices alone.

    `faults_ended_at` (the ledger's clock): each device must have a promised message that it first tried after it, with
    its rows stored. `insights` are judged when asked for, which is fair once every window is closed. Without `chain`
    the batches' numbers and links are not judged: for a storage that was given only a part of them.
    """
    sent = ledger.sent()
    seen = _messages_in(storage)
    arrival = find_arrival(
        (each for each in sent if each.is_promised or _key(each) in seen), storage.sequences("readings")
    )
    reference = Reference(bundle, policy_text)
    for each in arrival.order:
        reference.take(each.device, each.message)
    expected = reference.expected
    expected.policy = policy_hash
    links = broken_batches(storage.batches) if chain else []
    verdict = judge(
        expected,
        readings=storage.lane("readings"),
        rejected=storage.lane("rejected"),
        anomalies=storage.lane("anomalies"),
        insights=storage.lane("insights") if insights else None,
        broken=[*links, *_contradictions(storage)],
    )
    verdict.promised = sum(each.is_promised for each in sent)
    verdict.attempted = len(sent) - verdict.promised
    verdict.out_of_order = verdict.note_all((*arrival.misplaced, *misplaced_events(storage.sequences("anomalies"))))
    verdict.overwritten = verdict.note_all(overwrites(writes))
    if faults_ended_at is not None:
        verdict.not_fresh = verdict.note_all(_stale(sent, expected, storage, faults_ended_at))
    return verdict


def _key(sent: Sent) -> tuple[str, str]:
    return sent.device, sent.message.message_id


def _messages_in(storage: Storage) -> set[tuple[str, str]]:
    """Every message of which there is any trace: it arrived, so all of it must be there."""
    events = (row for event in storage.lane("anomalies") for row in event.get("rows", ()))
    return {row_id(row)[:2] for row in (*storage.lane("readings"), *storage.lane("rejected"), *events)}


def _stale(sent: Iterable[Sent], expected: Expected, storage: Storage, since: float) -> Iterator[str]:
    """A line for each device that has no promised message begun after `since` with all its rows stored."""
    stored = {row_id(row) for row in storage.lane("readings")}
    rows: dict[tuple[str, str], list[bool]] = {}
    for identity in expected.rows:
        rows.setdefault(identity[:2], []).append(identity in stored)
    fresh = {each.device: False for each in sent}
    for each in sent:
        if each.is_promised and each.began_at > since and (found := rows.get(_key(each))):
            fresh[each.device] |= all(found)
    yield from (
        f"{device}: nothing that was sent after the faults is stored"
        for device, is_fresh in fresh.items()
        if not is_fresh
    )


def _contradictions(storage: Storage) -> Iterator[str]:
    """A line for each batch that holds a row of another policy, model, site or hour than it says."""
    for batch, rows in zip(storage.batches, storage.rows, strict=True):
        for row in rows:
            if strange := [name for name, agrees in _agreements(batch, row) if not agrees]:
                yield f"{batch.path} holds a row of another {', '.join(strange)}"
                break


def _agreements(batch: Batch, row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    yield "site", unquote(escape_site(str(row.get("site")))) == batch.name.site
    if batch.name.lane != "rejected" and batch.meta is not None:
        yield "policy", row.get("policy") == batch.meta.policy
        yield "model", row.get("model") == batch.meta.model
    time = row.get("received" if batch.name.lane == "rejected" else "t")
    folder = hour_folder(parse_timestamp(time), now_micros=_END_OF_TIME)
    yield "hour", batch.name.folder in (folder, UNKNOWN_FOLDER)
