"""System calls of a module fail under its feet, one at a time; each input still has its effect once."""

import signal

import pytest

from tests.chaos.tracing import Injection, NoStrace, injecting, require_strace
from tests.edge_module.process import EchoProcess
from tests.edge_module.scripted_hub import Input, ScriptedHub
from tests.edge_module.test_data_path import said

try:
    require_strace()
except NoStrace as missing:
    # `make test` runs where there is no more than Python, make and git. Tracing that is refused is an error, though.
    pytest.skip(str(missing), allow_module_level=True)

_WAYS = (
    ("pwrite64", "error=EIO"),
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "retval=0"),
    ("fdatasync", "error=EIO"),
    ("write", "error=EPIPE"),
    ("read", "error=ECONNRESET"),
    ("poll", "error=ENOMEM"),
)
_SECS = 10.0


async def test_whichever_call_fails_each_input_is_echoed_once(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    await hub.attached()
    assert echo.process is not None
    for number, (call, how) in enumerate(_WAYS):
        async with injecting(echo.process.pid, Injection(call, how)) as trace:
            await hub.deliver([Input(f"m{number}".encode(), str(number))])
            assert await trace.wait_injected(_SECS), f"{call} was not called"
    await hub.until(lambda: len(hub.once()) == len(_WAYS))
    assert said(hub) == [f"m{number}" for number in range(len(_WAYS))]
    echo.send(signal.SIGTERM)
    assert await echo.wait() == 0


async def test_a_failed_wait_does_not_end_the_answers_about_health(hub: ScriptedHub, echo: EchoProcess) -> None:
    await echo.start()
    await hub.attached()
    assert echo.process is not None
    async with injecting(echo.process.pid, Injection("poll", "error=ENOMEM")) as trace:
        assert await trace.wait_injected(_SECS)
    assert '"is_alive": true' in echo.get("/healthz")
