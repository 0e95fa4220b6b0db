import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulator.errors import UserError
from simulator.logbook import Logbook
from simulator.manifest import ModuleSpec, RestartPolicy
from simulator.process import Child
from simulator.supervisor import Ended, Supervisor, cool_off_secs, restarts_after
from tests.simulator.patience import until

SCALE = 1000.0


def spec(name: str, code: str, *, policy: RestartPolicy = "always", order: int = 0) -> ModuleSpec:
    return ModuleSpec(name, (sys.executable, "-c", code), restart_policy=policy, startup_order=order)


async def environment(_: ModuleSpec) -> dict[str, str]:
    return dict(os.environ)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def logbook(tmp_path: Path) -> Logbook:
    return Logbook(tmp_path / "logs")


@pytest.fixture
async def supervisor(logbook: Logbook) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(logbook, time_scale=SCALE, grace_secs=1)
    yield supervisor
    await supervisor.stop()
    logbook.close()


FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def test_cool_off_doubles_up_to_five_minutes() -> None:
    assert [cool_off_secs(restarts) for restarts in (0, 1, 2, 4, 5, 100)] == [10, 20, 40, 160, 300, 300]


def test_a_site_may_keep_the_cool_off_shorter() -> None:
    assert [cool_off_secs(restarts, limit_secs=15.0) for restarts in (0, 1, 100)] == [10, 15, 15]


@pytest.mark.parametrize(
    ("policy", "exit_code", "again"),
    [
        ("always", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("on-unhealthy", -9, True),
        ("on-unhealthy", 0, False),
        ("never", 1, False),
    ],
)
def test_restart_policies_are_edge_agents(policy: RestartPolicy, exit_code: int, again: bool) -> None:
    assert restarts_after(policy, exit_code) is again


async def test_a_killed_module_starts_again_with_another_pid(supervisor: Supervisor, logbook: Logbook) -> None:
    await supervisor.start([spec("m", FOREVER)], environment)
    await until(lambda: "up" in logbook.path("m").read_text())
    first = supervisor.pid("m")
    assert supervisor.send_signal("m", signal.SIGKILL)
    await until(lambda: supervisor.starts("m") == 2 and supervisor.pid("m"))
    assert supervisor.pid("m") != first
    await until(lambda: logbook.path("m").read_text().count("up") == 2)
    assert "was ended by SIGKILL; it starts again in 0.01 s" in logbook.path("m").read_text()


async def test_how_each_process_ended_is_known_and_whether_it_was_asked_to(
    supervisor: Supervisor, logbook: Logbook
) -> None:
    crashes = spec("m", "print('oh', flush=True)\nimport os\nos._exit(7)", policy="on-failure")
    await supervisor.start([crashes, spec("f", FOREVER)], environment)
    await until(lambda: "up" in logbook.path("f").read_text() and len(supervisor.ends) >= 2)
    assert {(end.name, end.exit_code, end.was_asked_for, str(end)) for end in supervisor.ends} == {
        ("m", 7, False, "m ended with exit code 7: last line oh")
    }
    supervisor.send_signal("f", signal.SIGKILL)
    await until(lambda: any(end.name == "f" for end in supervisor.ends))
    assert [end.was_asked_for for end in supervisor.ends if end.name == "f"] == [True]


@pytest.mark.parametrize(
    ("code", "sent", "said", "asked"),
    [
        (-9, (), (), False),
        (-9, (signal.SIGSTOP,), (), False),
        (-9, (signal.SIGKILL,), (), True),
        (-9, (), ("kill point handled", "another thread's line"), True),
        (1, (signal.SIGKILL, signal.SIGTERM), (), False),
        (1, (), ("kill point handled",), False),
        (-11, (signal.SIGKILL,), (), False),
    ],
)
def test_only_the_signal_that_was_sent_and_a_kill_point_were_asked_for(
    code: int, sent: tuple[signal.Signals, ...], said: tuple[str, ...], asked: bool
) -> None:
    assert Ended("m", code, frozenset(sent), said).was_asked_for is asked


async def test_a_module_that_may_end_stays_down(supervisor: Supervisor, logbook: Logbook) -> None:
    await supervisor.start([spec("m", "print('done')", policy="on-failure")], environment)
    await until(lambda: "stays down" in logbook.path("m").read_text())
    assert supervisor.starts("m") == 1
    assert not supervisor.send_signal("m", signal.SIGKILL)


async def test_modules_start_in_their_order(supervisor: Supervisor, tmp_path: Path) -> None:
    specs = [spec("b", FOREVER, order=2), spec("c", FOREVER, order=1), spec("a", FOREVER, order=2)]
    await supervisor.start(specs, environment)
    assert supervisor.names == ("c", "a", "b")


async def test_stop_asks_first_and_kills_what_does_not_listen(supervisor: Supervisor, logbook: Logbook) -> None:
    polite = (
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up', flush=True)\ntime.sleep(600)"
    )
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    await supervisor.start([spec("polite", polite), spec("deaf", deaf)], environment)
    await until(lambda: all("up" in logbook.path(name).read_text() for name in ("polite", "deaf")))
    assert await supervisor.stop() == {"polite": 0, "deaf": -signal.SIGKILL}


async def test_a_module_does_not_start_again_after_stop(supervisor: Supervisor) -> None:
    await supervisor.start([spec("m", FOREVER)], environment)
    await supervisor.stop()
    assert supervisor.pid("m") is None
    assert supervisor.starts("m") == 1


async def test_an_unknown_module_is_named_with_those_that_exist(supervisor: Supervisor) -> None:
    await supervisor.start([spec("m", FOREVER)], environment)
    with pytest.raises(UserError, match="no module x; there are m"):
        supervisor.pid("x")


async def test_a_fault_of_the_environment_reaches_the_caller(supervisor: Supervisor) -> None:
    async def refuse(_: ModuleSpec) -> dict[str, str]:
        raise UserError("no identity")

    with pytest.raises(UserError, match="no identity"):
        await supervisor.start([spec("m", FOREVER)], refuse)


async def test_a_restart_that_fails_is_told_and_tried_again(supervisor: Supervisor, logbook: Logbook) -> None:
    failures: list[Exception] = []

    async def sometimes(_: ModuleSpec) -> dict[str, str]:
        if failures:
            raise failures.pop()
        return dict(os.environ)

    await supervisor.start([spec("m", FOREVER)], sometimes)
    failures += [ValueError(), UserError("m is no module of this edge")]
    assert supervisor.send_signal("m", signal.SIGKILL)
    await until(lambda: supervisor.starts("m") == 2 and supervisor.pid("m"))
    log = logbook.path("m").read_text()
    assert "m is no module of this edge; it starts again in 0.02 s" in log
    assert "cannot be started: ValueError(); it starts again in 0.04 s" in log


async def test_a_process_that_cannot_be_made_is_tried_again(supervisor: Supervisor) -> None:
    told: list[str] = []
    supervisor.observe("m", told.append)
    await supervisor.start([spec("m", FOREVER)], environment)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those that are open stay; there are no further ones
    try:
        assert supervisor.send_signal("m", signal.SIGKILL)
        await until(lambda: any("m cannot be started: [Errno 24]" in line for line in told))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: supervisor.starts("m") == 2 and supervisor.pid("m"))


async def test_the_last_exit_code_is_kept(supervisor: Supervisor) -> None:
    await supervisor.start([spec("m", FOREVER), spec("once", "raise SystemExit(3)", policy="never")], environment)
    assert supervisor.exit_code("m") is None
    await until(lambda: supervisor.exit_code("once") == 3)
    assert supervisor.send_signal("m", signal.SIGKILL)
    await until(lambda: supervisor.starts("m") == 2)
    assert supervisor.exit_code("m") == -signal.SIGKILL
    await supervisor.stop()
    assert supervisor.exit_code("m") == -signal.SIGTERM


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from simulator.process import Child

async def main():
    child = await Child.start("c", [{sys.executable!r}, "-c", "import time; time.sleep(600)"], dict(os.environ))
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    pids: list[int] = []
    parent = await Child.start(
        "parent", [sys.executable, "-c", script], os.environ, sink=lambda line: pids.append(int(line))
    )
    await until(lambda: pids)
    assert alive(pids[0])
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(pids[0]))


async def test_the_last_words_of_a_process_are_kept() -> None:
    child = await Child.start(
        "c", [sys.executable, "-c", "print('one'); print('two' * 700_000); print('three')"], os.environ
    )
    assert await child.wait() == 0
    assert child.tail[0] == "one"
    assert child.tail[-1] == "three"


async def test_a_command_that_does_not_exist_ends_with_a_code() -> None:
    child = await Child.start("c", ["/no/such/command"], os.environ)
    assert await child.wait() != 0


async def test_a_long_log_is_kept_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.logbook._FILE_LIMIT_BYTES", 1000)
    logbook = Logbook(tmp_path)
    sink = logbook.sink("m")
    for number in range(150):
        sink(f"line {number:04}")
    logbook.close()
    assert (tmp_path / "m.1.log").stat().st_size + (tmp_path / "m.log").stat().st_size == 1500
    assert "line 0149" in (tmp_path / "m.log").read_text() + (tmp_path / "m.1.log").read_text()
