"""Rows through the whole pipeline while its surroundings misbehave; scaled edgeHub time-outs, real everything else."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from simulator.delivery import Message, into_messages
from simulator.devices import Device
from simulator.local_site import LocalSite
from simulator.machines import Pump
from simulator.stored import Storage, rejected_bodies
from tests.e2e.pipeline import SEED, START_MICROS, Feeder, kill_hub, pipeline, read_back, settle, verdict_of

TIME_SCALE = 20.0


async def send(site: LocalSite, name: str, messages: Sequence[Message]) -> None:
    async with Device(await site.add_device(name)) as device:
        await device.connect()
        for message in messages:
            await device.send(message)


async def live_twice(site: LocalSite, name: str, first: Sequence[Message], second: Sequence[Message]) -> None:
    """A device that is restarted between the two."""
    await send(site, name, first)
    await send(site, name, second)


async def deliveries_tried_again(site: LocalSite) -> int:
    return sum((await site.control.stats())["delivery_retries"].values())


def times_sent(messages: Sequence[Message]) -> Counter[str]:
    return Counter(json.loads(text)["ts"] for message in messages for text in message.texts)


def times_stored(storage: Storage, device: str) -> Counter[str]:
    return Counter(row["reading"]["ts"] for row in storage.lane("readings") if row["device"] == device)


@pytest.mark.slow
async def test_edgehub_killed_in_mid_flight_loses_nothing_it_had_acknowledged(tmp_path: Path, bundle: Path) -> None:
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE) as site:
        feeder = Feeder(site)
        async with asyncio.TaskGroup() as group:
            group.create_task(feeder.run())
            for _ in range(3):
                await asyncio.sleep(1.5)  # let rows get under way between the kills
                await kill_hub(site)
            feeder.stop()
        await settle(site)
        storage = await read_back(site)
    verdict = verdict_of(bundle, feeder.ledger, storage)
    assert verdict.sent > 100
    assert verdict.intact, "\n".join(verdict.problems)


@pytest.mark.slow
async def test_reboots_repeats_poison_and_a_stopped_module(tmp_path: Path, bundle: Path) -> None:
    """A device that counts from 1 again loses no row; a repeat is stored once; poison blocks nothing behind it."""
    readings = list(islice(Pump(SEED, "pump-01", START_MICROS).readings(), 120))
    first_life = list(into_messages(readings[:60], device="pump-01", rows_per_message=5))
    second_life = list(into_messages(readings[60:], device="pump-01", rows_per_message=5))
    assert [message.message_id for message in first_life] == [message.message_id for message in second_life]
    poison = [Message(f"bad-{number}", body, ()) for number, body in enumerate((b"\xff\x00", b"{", b"", b"17"))]
    behind = list(
        into_messages(islice(Pump(SEED, "pump-02", START_MICROS).readings(), 40), device="x", rows_per_message=1)
    )
    async with pipeline(tmp_path, bundle, time_scale=TIME_SCALE) as site:
        # Stopped for longer than edgeHub's acknowledge time-out (30 s, scaled): what it has in hand is sent again.
        assert site.supervisor.send_signal("scorer", signal.SIGSTOP)
        async with asyncio.TaskGroup() as group:
            group.create_task(live_twice(site, "pump-01", [*first_life, *first_life[-3:]], second_life))
            group.create_task(send(site, "visitor", [*poison, *behind]))
            async with asyncio.timeout(30):
                while await deliveries_tried_again(site) == 0:  # noqa: ASYNC110 - it happens in another process
                    await asyncio.sleep(0.05)
            assert site.supervisor.send_signal("scorer", signal.SIGCONT)
        await settle(site)
        storage = await read_back(site)
        scorer = site.meter("scorer")
        assert await scorer.read()
    assert (
        scorer.total("edgeweir_scorer_copies_messages_total") + scorer.total("edgeweir_scorer_repeats_messages_total")
        >= 1
    )
    assert times_stored(storage, "pump-01") == times_sent([*first_life, *second_life])
    assert times_stored(storage, "visitor") == times_sent(behind)
    rejected = {row["message"]: body for row, body in rejected_bodies(storage.lane("rejected"))}
    assert rejected == {message.message_id: message.body for message in poison}
    assert len(storage.lane("rejected")) == len(poison)
