"""The uploader as the process it is in a deployment: killed at every step, and stopped while an upload hangs.

No edgeHub answers here: the module starts with the settings that its store keeps, as it would offline. Between two
lives of the process a bench on the same store gives it its messages.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from simulator.azurite import Azurite
from simulator.fault_proxy import LoseResponse, Timeout, run_fault_proxy
from tests.uploader.azurite import (
    assert_chain_is_whole,
    container_of,
    rows_in_folder,
    stored_blobs,
    stored_rows,
)
from tests.uploader.lane_messages import anomalies, numbered, rejected, row
from tests.uploader.running import Desired, desired, feed, make_bench, mount_secret, until
from uploader.sender import STEPS

# Within this loopback network nobody answers on any port.
NOBODY = "127.77.77.77"


def give(folder: Path, azurite: Azurite, settings: Desired, messages: dict[str, tuple[str, bytes]]) -> list[str]:
    """What edgeHub would deliver while the process lives; how each message ended."""
    bench = make_bench(folder, azurite, settings)
    ends = [feed(bench, body, lane, message_id=name) for name, (lane, body) in messages.items()]
    bench.close()
    return ends


@contextmanager
def process(folder: Path, *, kill_at: str = "") -> Iterator[subprocess.Popen[bytes]]:
    (folder / "ca.pem").touch()
    environment = {
        **os.environ,
        "EdgeHubConnectionString": f"HostName=hub;GatewayHostName={NOBODY};DeviceId=e;ModuleId=u;SharedAccessKey=a2V5",
        "EdgeModuleCACertificateFile": str(folder / "ca.pem"),
        "EDGEWEIR_STATE_DIR": str(folder),
        "EDGEWEIR_CONFIG_DIR": str(folder),
        "EDGEWEIR_HTTP_HOST": "127.0.0.1",
        "EDGEWEIR_HTTP_PORT": "0",
        "EDGEWEIR_KILL_AT": kill_at,
        "EDGEWEIR_TIME_SCALE": "5",
    }
    with (folder / "log").open("ab") as log:
        running = subprocess.Popen([sys.executable, "-m", "uploader"], env=environment, stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def wait_until(condition: Callable[[], bool], *, secs: float = 30.0) -> None:
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_drained(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "uploader.db", timeout=5)) as db:
        (left,) = db.execute(
            "SELECT (SELECT COUNT(*) FROM uploader_open) + (SELECT COUNT(*) FROM uploader_deliveries)"
        ).fetchone()
        return bool(left == 0)


def test_killed_at_every_step_everything_is_stored_once(tmp_path: Path, azurite: Azurite, container_name: str) -> None:
    kept = tmp_path / "kept"
    settings = desired(container_name, batch_max_rows=5)
    folder_too = {"kind": "directory", "name": "folder", "path": str(kept), "lanes": ["readings"]}
    settings["destinations"] = [*settings["destinations"], folder_too]  # type: ignore[misc]
    messages: dict[str, tuple[str, bytes]] = {}
    for life, step in enumerate(STEPS):
        first = len(messages) * 5
        for number in range(4):
            messages[f"m{life}-{number}"] = ("readings", numbered(first + number * 5, 5))
        messages[f"r{life}"] = ("rejected", rejected(b"%d" % life))
        # All of them again, as edgeHub does when it saw no acknowledgement.
        ends = give(tmp_path, azurite, settings, messages)
        assert ends == ["repeat"] * (life * 5) + ["handled"] * 5
        with process(tmp_path, kill_at=f"{step}:{1 + life % 3}") as running:
            assert running.wait(timeout=30) == -signal.SIGKILL, (tmp_path / "log").read_text()
    with process(tmp_path):
        wait_until(lambda: is_drained(tmp_path))
    expected = sorted(5 * position + i for position in range(5 * len(STEPS)) if position % 5 != 4 for i in range(5))
    container = container_of(azurite, container_name)
    assert stored_rows(container) == expected
    assert sorted(stored["i"] for stored in rows_in_folder(kept, "readings")) == expected  # type: ignore[type-var]
    assert sorted(str(stored["body_b64"]) for stored in rows_in_folder(tmp_path)) == [
        "MA==", "MQ==", "Mg==", "Mw==", "NA==", "NQ==",
    ]  # fmt: skip
    assert_chain_is_whole(stored_blobs(container))


@pytest.mark.parametrize("step", ["handled", "before_commit", "after_commit"])
def test_killed_while_it_accepts_it_keeps_all_or_nothing(
    tmp_path: Path, azurite: Azurite, container_name: str, step: str
) -> None:
    class Killed(BaseException):
        pass

    bench = make_bench(tmp_path, azurite, desired(container_name))
    bench.fail_next(step, Killed())
    with pytest.raises(Killed):
        feed(bench, numbered(0, 5), message_id="m")
    bench.restart()
    assert feed(bench, numbered(0, 5), message_id="m") == ("repeat" if step == "after_commit" else "handled")
    bench.close()
    with process(tmp_path):
        wait_until(lambda: is_drained(tmp_path))
    assert stored_rows(container_of(azurite, container_name)) == [0, 1, 2, 3, 4]


async def test_sigterm_ends_it_within_ten_seconds_while_an_upload_hangs(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    settings = desired(container_name, attempt_base_secs=600)
    async with run_fault_proxy("127.0.0.1", azurite.port) as proxy:
        proxy.add(Timeout(timeout=0, stream="upstream"))
        give(tmp_path, azurite, settings, {"m": ("readings", numbered(0, 5)), "a": ("anomalies", anomalies([row(9)]))})
        mount_secret(tmp_path, azurite.account.connection_string(proxy.port))
        with process(tmp_path) as running:
            await until(lambda: proxy.accepted > 0)
            running.send_signal(signal.SIGTERM)
            await until(lambda: running.poll() is not None, secs=10)
            assert running.returncode == 0
    mount_secret(tmp_path, azurite.connection_string)
    with process(tmp_path):
        await until(lambda: is_drained(tmp_path))
    container = container_of(azurite, container_name)
    assert stored_rows(container) == [0, 1, 2, 3, 4]
    assert stored_rows(container, "anomalies") == [9]


async def test_killed_in_the_middle_of_an_upload_whose_answer_was_lost(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    async with run_fault_proxy("127.0.0.1", azurite.port, http=True) as proxy:
        give(tmp_path, azurite, desired(container_name, batch_max_rows=5), {"m": ("readings", numbered(0, 5))})
        container_of(azurite, container_name).create_container()
        mount_secret(tmp_path, azurite.account.connection_string(proxy.port))
        proxy.lose_response(LoseResponse(nth=None))
        with process(tmp_path) as running:
            await until(lambda: proxy.http.lost)
            running.kill()
        proxy.reset()
        with process(tmp_path):
            await until(lambda: is_drained(tmp_path))
    assert stored_rows(container_of(azurite, container_name)) == [0, 1, 2, 3, 4]
