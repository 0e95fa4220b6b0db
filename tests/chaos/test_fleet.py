"""A fleet on a real site: what its devices were promised is stored, read cell by cell, and judged."""

import asyncio
import random
import signal
from itertools import islice
from pathlib import Path

import pytest

from simulator.folders import read_bundle
from simulator.judgement import judge_run
from simulator.local_site import EDGE_HUB, LocalSite
from tests.chaos.fleet import KINDS, Fleet, Kind, messages_of
from tests.chaos.reading import Reader
from tests.e2e.pipeline import POLICY, kill_hub, pipeline, settle
from tests.simulator.models import write_spread_bundle
from tests.waiting import until

TIME_SCALE = 20.0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_one_seed_is_one_exact_run_and_an_id_names_one_body(kind: Kind) -> None:
    messages, again = (list(islice(messages_of(kind, "d", 7, random.Random(3)), 200)) for _ in range(2))
    assert messages == again
    assert len({message.message_id for message in messages}) == len(set(messages))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_cell_that_is_repeated_alone_sends_the_same_rows_under_another_prefix(kind: Kind) -> None:
    bodies, again = (
        [message.body for message in islice(messages_of(kind, f"{prefix}-{kind.name}", 7, random.Random(3)), 200)]
        for prefix in ("c0001", "c0017")
    )
    assert bodies == again


# The SDK leaves a socket behind when its shutdown is given up, as it must be while edgeHub stands still.
@pytest.mark.filterwarnings("ignore:.*SSLSocket.*:pytest.PytestUnraisableExceptionWarning")
async def test_what_a_fleet_was_promised_is_stored_while_edgehub_dies_and_hangs(tmp_path: Path) -> None:
    """Two cells on one site. In the second edgeHub stands still when the fleet is stopped: that ends in time."""
    bundle = write_spread_bundle(tmp_path / "bundle", threshold=25.0, length=8)
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE) as site:
        reader = Reader(site)
        dies = await sending(site, reader, "c0-")
        await kill_hub(site)
        ended_at = dies.ledger.clock()
        await until(lambda: fresh_devices(dies, ended_at) == set(dies.names), secs=30)
        await dies.stop()
        await judge_cell(site, reader, bundle, dies, ended_at)

        hangs = await sending(site, reader, "c1-")
        assert site.supervisor.send_signal(EDGE_HUB, signal.SIGSTOP)
        async with asyncio.timeout(30):
            await hangs.stop(patience_secs=0.5)
        assert site.supervisor.send_signal(EDGE_HUB, signal.SIGCONT)
        await site.wait_until_connected()
        await judge_cell(site, reader, bundle, hangs, None)


async def sending(site: LocalSite, reader: Reader, prefix: str) -> Fleet:
    fleet = Fleet(site, prefix, seed=3, rate=8.0)
    reader.begin(prefix)
    await fleet.start()
    await until(lambda: len(fleet.ledger.promised()) > 20, secs=30)
    return fleet


async def judge_cell(site: LocalSite, reader: Reader, bundle: Path, fleet: Fleet, ended_at: float | None) -> None:
    await settle(site)
    await reader.look()
    verdict = judge_run(
        fleet.ledger, reader.storage, read_bundle(bundle), POLICY.read_text(), faults_ended_at=ended_at, chain=False
    )
    assert verdict.intact, "\n".join(verdict.problems)
    assert verdict.promised > 20
    assert reader.problems() == []


def fresh_devices(fleet: Fleet, since: float) -> set[str]:
    sent = fleet.ledger.sent()
    return {each.device for each in sent if each.is_promised and each.began_at > since and each.message.texts}
