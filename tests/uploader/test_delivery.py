"""From an input message to a stored row, over a real Azurite: everything once, whatever the storage does."""

import asyncio
import itertools
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from edge_module.testing import Bench
from simulator.azurite import Azurite
from simulator.fault_proxy import Down, FaultProxy, LoseResponse, Timeout, run_fault_proxy
from simulator.fault_proxy.toxics import STREAMS
from tests.uploader.azurite import (
    assert_chain_is_whole,
    container_of,
    rows_in_folder,
    stored_blobs,
    stored_rows,
    with_key,
)
from tests.uploader.lane_messages import (
    HOUR_MICROS,
    MODEL,
    POLICY,
    START_MICROS,
    numbered,
    readings,
    rejected,
    row,
)
from tests.uploader.running import desired, drain, feed, is_drained, make_bench, mount_secret, until, working
from uploader.accept import Group, lines_of
from uploader.settings import Settings


def failed_attempts(bench: Bench[Settings], reason: str) -> float:
    return bench.metrics.value("failed_attempts", destination="storage", reason=reason)


def take_away(proxy: FaultProxy, how: str) -> None:
    match how:
        case "refuse":
            proxy.add(Down())
        case "hang":
            for stream in STREAMS:
                proxy.add(Timeout(timeout=0, stream=stream))
        case "lose_response":
            proxy.lose_response(LoseResponse(nth=None))


async def test_rows_reach_the_container_once_with_their_envelope(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    for first in range(0, 60, 10):
        assert feed(bench, numbered(first, 10)) == "handled"
    await drain(bench)
    container = container_of(azurite, container_name)
    blobs = stored_blobs(container)
    assert stored_rows(container) == list(range(60))
    assert_chain_is_whole(blobs)
    assert {(blob.meta.policy, blob.meta.model, blob.name.site) for blob in blobs} == {(POLICY, MODEL.digest, "site")}
    assert list(blobs[0].rows[0])[:4] == ["policy", "site", "model", "device"]
    assert bench.metrics.value("stored_rows", lane="readings", destination="storage") == 60


async def test_rows_lie_in_the_hour_of_their_own_time(tmp_path: Path, azurite: Azurite, container_name: str) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    times = [START_MICROS / 1e6, START_MICROS / 1e6 - 3600, None, "soon", "2099-01-01T00:00:00Z"]
    feed(bench, readings(row(i, t=t) for i, t in enumerate(times)))
    await drain(bench)
    blobs = stored_blobs(container_of(azurite, container_name))
    by_folder = {blob.name.folder: [stored["i"] for stored in blob.rows] for blob in blobs}
    assert by_folder == {
        "date=2026-11-18/hour=11": [0],
        "date=2026-11-18/hour=10": [1],
        "date=unknown/hour=unknown": [2, 3, 4],
    }


async def test_a_batch_never_mixes_policies_or_models(tmp_path: Path, azurite: Azurite, container_name: str) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    feed(bench, readings([row(0)]))
    feed(bench, readings([row(1)], policy="other"))
    feed(bench, readings([row(2)], model=None))
    await drain(bench)
    found = {(blob.meta.policy, blob.meta.model) for blob in stored_blobs(container_of(azurite, container_name))}
    assert found == {(POLICY, MODEL.digest), ("other", MODEL.digest), (POLICY, None)}


@pytest.mark.parametrize("mode", ["refuse", "hang", "lose_response"])
async def test_an_outage_delays_and_neither_loses_nor_doubles(
    tmp_path: Path, azurite: Azurite, container_name: str, mode: str
) -> None:
    async with run_fault_proxy("127.0.0.1", azurite.port, http=True) as proxy:
        settings = desired(container_name, batch_max_rows=10, attempt_base_secs=0.3)
        bench = make_bench(tmp_path, azurite, settings, port=proxy.port)
        async with working(bench):
            feed(bench, numbered(0, 10))
            await until(lambda: is_drained(bench))
            take_away(proxy, mode)
            for first in range(10, 50, 10):
                feed(bench, numbered(first, 10))
            await until(lambda: failed_attempts(bench, "storage_unreachable") >= 2)
            assert "storage_unreachable" in bench.health.reasons()
            proxy.reset()
            await until(lambda: is_drained(bench))
            assert "storage_unreachable" not in bench.health.reasons()
        if mode == "lose_response":
            assert proxy.http.lost
            assert bench.metrics.value("found_batches", lane="readings", destination="storage") >= 1
    container = container_of(azurite, container_name)
    assert stored_rows(container) == list(range(50))
    assert_chain_is_whole(stored_blobs(container))


async def test_a_port_where_nobody_listens_is_an_outage_too(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name), port=9)
    feed(bench, numbered(0, 3))
    async with working(bench):
        await until(lambda: "storage_unreachable" in bench.health.reasons())
        mount_secret(tmp_path, azurite.connection_string)
        await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, container_name)) == [0, 1, 2]


async def test_a_wrong_credential_holds_until_the_file_has_the_right_one(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    settings = desired(container_name, retry_max_secs=3600)
    bench = make_bench(tmp_path, azurite, settings)
    mount_secret(tmp_path, with_key(azurite, "d3Jvbmc="))
    feed(bench, numbered(0, 3))
    async with working(bench):
        await until(lambda: "auth_refused" in bench.health.reasons())
        mount_secret(tmp_path, "no connection string")
        await until(lambda: "credential_missing" in bench.health.reasons())
        assert "auth_refused" not in bench.health.reasons()
        mount_secret(tmp_path, azurite.connection_string)
        await until(lambda: is_drained(bench))
        assert not bench.health.reasons().keys() & {"auth_refused", "credential_missing"}
    assert stored_rows(container_of(azurite, container_name)) == [0, 1, 2]


async def test_no_secret_is_in_any_report(tmp_path: Path, azurite: Azurite, container_name: str) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    mount_secret(tmp_path, with_key(azurite, "hush5"))
    feed(bench, numbered(0, 1))
    async with working(bench):
        await until(lambda: failed_attempts(bench, "credential_missing") > 0)
    assert "hush" not in repr((bench.health.reasons(), bench.module.status(), bench.metrics.exposition()))


async def test_a_name_that_is_taken_starts_a_new_spool_id_and_goes_on(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name, batch_max_rows=1))
    bench.method("pause")
    for i in range(3):
        feed(bench, readings([row(i)]))
    async with working(bench):
        await until(lambda: bench.metrics.value("cut_batches", lane="readings") == 3)
        names = [name for (name,) in bench.engine.store.db.execute("SELECT name FROM uploader_deliveries")]
        container = container_of(azurite, container_name)
        container.create_container()
        container.upload_blob(names[1], b"of another writer", content_settings=ContentSettings())
        bench.method("resume")
        await until(lambda: is_drained(bench))
    assert container.download_blob(names[1]).readall() == b"of another writer"
    container.delete_blob(names[1])
    blobs = stored_blobs(container)
    assert sorted(r["i"] for blob in blobs for r in blob.rows) == [0, 1, 2]  # type: ignore[type-var]
    assert len({blob.meta.spool for blob in blobs}) == 2
    assert_chain_is_whole(blobs)


async def test_one_destination_offline_holds_up_nothing_else(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    async with run_fault_proxy("127.0.0.1", azurite.port, http=True) as proxy:
        take_away(proxy, "hang")
        (tmp_path / "other").write_text(azurite.account.connection_string(proxy.port))
        settings = desired(container_name, attempt_base_secs=600)
        storage: dict[str, object] = settings["destinations"][0]  # type: ignore[index]
        slow = {**storage, "name": "slow", "connection_string_file": "other", "container": f"{container_name}-2"}
        settings["destinations"] = [storage, {**slow, "lanes": ["readings"]}]
        bench = make_bench(tmp_path, azurite, settings)
        async with working(bench):
            for first in range(0, 30, 10):
                feed(bench, numbered(first, 10))
            feed(bench, rejected(), "rejected")
            await until(lambda: bench.metrics.value("stored_rows", lane="readings", destination="storage") == 30)
            await until(lambda: bench.metrics.value("stored_rows", lane="rejected", destination="local") == 1)
            owed = bench.module.status()["backlog"]
            assert {(line["destination"], line["rows"]) for line in owed} == {("slow", 30)}  # type: ignore[attr-defined]
            proxy.reset()
            await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, f"{container_name}-2")) == list(range(30))
    assert stored_rows(container_of(azurite, container_name)) == list(range(30))


async def test_rejected_lies_in_the_state_folder(tmp_path: Path, azurite: Azurite, container_name: str) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    feed(bench, rejected(), "rejected")
    feed(bench, b"{ broken", "readings", message_id="m1")
    await drain(bench)
    rows = rows_in_folder(tmp_path)
    assert [(stored["reason"], stored["site"]) for stored in rows] == [("not_json", "site"), ("not_json", "site")]
    assert sorted(b64decode(str(stored["body_b64"])) for stored in rows) == [b"not json", b"{ broken"]
    assert not container_of(azurite, container_name).exists()


async def test_flush_cuts_at_once_and_pause_stops_sending_also_after_a_restart(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name, batch_max_age_secs=86_400))
    assert bench.method("pause") == (200, {"paused": True})
    feed(bench, numbered(0, 5))
    assert bench.method("flush") == (200, {"open_batches": 1})
    async with working(bench):
        await until(lambda: bench.metrics.value("cut_batches", lane="readings") == 1)
    bench.restart()
    assert bench.module.status()["paused"] is True
    async with working(bench):
        feed(bench, numbered(5, 5))
        bench.method("flush")
        await until(lambda: bench.metrics.value("cut_batches", lane="readings") == 1)
        assert not container_of(azurite, container_name).exists()
        bench.method("resume")
        await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, container_name)) == list(range(10))


async def test_a_full_spool_acknowledges_nothing_and_recovers(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    limit = 1024 * 1024
    bench = make_bench(tmp_path, azurite, desired(container_name, spool_max_bytes=limit, batch_max_age_secs=86_400))
    accepted = 0
    while feed(bench, numbered(accepted, 100)) == "handled":
        accepted += 100
        assert bench.module.status()["spool_used_bytes"] <= limit  # type: ignore[operator]
    assert accepted > 0
    async with working(bench):
        await until(lambda: feed(bench, numbered(accepted, 100)) == "handled")
        bench.method("flush")
        await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, container_name)) == list(range(accepted + 100))


async def test_rows_of_a_lane_without_a_destination_wait_for_one(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    settings = desired(container_name)
    bench = make_bench(tmp_path, azurite, {**settings, "destinations": []})
    assert "readings" in bench.health.reasons()["no_destination"]
    async with working(bench):
        feed(bench, numbered(0, 5))
        await until(lambda: bench.module.status()["backlog"] != [])
        assert bench.module.status()["backlog_rows"] != 0
        assert bench.set_settings(settings).outcome == "accepted"
        await until(lambda: is_drained(bench))
    assert "no_destination" not in bench.health.reasons()
    assert stored_rows(container_of(azurite, container_name)) == list(range(5))


async def test_batches_of_a_destination_that_is_no_longer_named_wait_for_it(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    settings = desired(container_name)
    bench = make_bench(tmp_path, azurite, settings)
    bench.method("pause")
    async with working(bench):
        feed(bench, numbered(0, 5))
        await until(lambda: bench.metrics.value("cut_batches", lane="readings") == 1)
        bench.set_settings({**settings, "destinations": []})
        bench.method("resume")
        named = {line["name"]: line["reason"] for line in bench.module.status()["destinations"]}  # type: ignore[attr-defined]
        assert named == {"local": None, "storage": "destination_unknown"}
        bench.set_settings(settings)
        await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, container_name)) == list(range(5))


def test_an_hour_is_an_hour() -> None:
    assert START_MICROS % HOUR_MICROS + 60_000_000 < HOUR_MICROS, "the rows of a test must not cross an hour"


async def test_what_is_sent_is_what_a_stack_hub_understands(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    async with run_fault_proxy("127.0.0.1", azurite.port, http=True) as proxy:
        bench = make_bench(tmp_path, azurite, desired(container_name, batch_max_rows=5), port=proxy.port)
        for first in range(0, 15, 5):
            feed(bench, numbered(first, 5))
        await drain(bench)
        requests = proxy.requests
    assert requests
    assert {request.header("x-ms-version") for request in requests} == {"2019-07-07"}
    newer = ("x-ms-tags", "x-ms-access-tier", "x-ms-encryption-scope", "x-ms-immutability", "x-ms-legal-hold")
    sent = {name.lower() for request in requests for name, _ in request.headers}
    assert not [name for name in sent if name.startswith(newer)]
    made = [request for request in requests if ("restype", "container") in request.query_items]
    assert [request.method for request in made] == ["PUT"], "the container is made once"
    put = [request for request in requests if request.header("x-ms-blob-type") == "BlockBlob"]
    # One was refused, because the container was missing.
    assert len(put) == 4
    for request in put:
        assert (request.method, request.header("if-none-match")) == ("PUT", "*")
        assert request.header("x-ms-blob-content-md5")
        assert request.header("x-ms-meta-previous_sha256") is not None
        assert "comp" not in dict(request.query_items), "a single Put Blob"


async def test_a_disk_that_refuses_now_and_then_loses_and_doubles_nothing(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name, batch_max_rows=25))
    refused = itertools.cycle(("before_commit", "effect_before_commit", "effect_after_commit"))

    async def refuse_now_and_then() -> None:
        while True:
            await asyncio.sleep(0.1)
            bench.fail_next(next(refused))

    async with working(bench):
        refusing = asyncio.create_task(refuse_now_and_then())
        for number in range(20):
            body, name = numbered(number * 5, 5), f"m{number}"
            await until(lambda body=body, name=name: feed(bench, body, message_id=name) != "held")  # type: ignore[misc]
        refusing.cancel()
        await until(lambda: is_drained(bench))
    container = container_of(azurite, container_name)
    assert stored_rows(container) == list(range(100))
    assert_chain_is_whole(stored_blobs(container))


async def test_a_batch_that_cannot_be_cut_is_told_and_tried_again(
    tmp_path: Path, azurite: Azurite, container_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))

    def no_memory(lines: object) -> bytes:
        raise MemoryError

    async with working(bench):
        with monkeypatch.context() as patch:
            patch.setattr("uploader.sender.compress", no_memory)
            assert feed(bench, numbered(0, 5), message_id="m0") == "handled"
            await until(lambda: "cut_failed" in bench.health.reasons())
        await until(lambda: "cut_failed" not in bench.health.reasons())
        await until(lambda: is_drained(bench))
    assert stored_rows(container_of(azurite, container_name)) == list(range(5))


@pytest.mark.parametrize(("failures", "first"), [(2, "18"), (1_000_000, "19")])
async def test_a_young_hour_waits_for_an_old_one_that_fails_now_and_then_but_not_for_ever(
    tmp_path: Path, azurite: Azurite, container_name: str, monkeypatch: pytest.MonkeyPatch, failures: int, first: str
) -> None:
    bench = make_bench(tmp_path, azurite, desired(container_name))
    calls = 0

    def lines_of_a_good_hour(group: Group, bodies: Sequence[bytes]) -> bytes:
        nonlocal calls
        calls += "hour=18" in group.folder
        if "hour=18" in group.folder and calls <= failures:
            raise MemoryError
        return lines_of(group, bodies)

    monkeypatch.setattr("uploader.sender.lines_of", lines_of_a_good_hour)
    for hour in (18, 19):
        feed(bench, readings([row(hour, t=f"2026-11-17T{hour}:00:00Z")]), message_id=f"m{hour}")
    container = container_of(azurite, container_name)
    async with working(bench):
        await until(lambda: bench.metrics.value("stored_rows", lane="readings", destination="storage") > 0)
        name = stored_blobs(container)[0].name
        assert (name.folder[-2:], name.batch_no) == (first, 1)
