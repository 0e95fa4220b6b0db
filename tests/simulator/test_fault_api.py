"""Fault proxies from outside: toxiproxy's HTTP API as its clients speak it, a script, a record, and the commands."""

import asyncio
import contextlib
import errno
import json
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from edgeweir.__main__ import build_app
from simulator.errors import UserError
from simulator.fault_client import FaultClient
from simulator.fault_proxy import (
    Add,
    Down,
    FaultProxy,
    Latency,
    Lose,
    Remove,
    Request,
    Step,
    Timeout,
    run_fault_proxy,
    run_schedule,
)
from simulator.fault_proxy.api import serve_faults
from simulator.fault_proxy.http_watch import Exchange
from simulator.fault_proxy.record import Record, exchange_document
from simulator.fault_proxy.script import read_script

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """Before a server that answers every request with 201."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with run_fault_proxy(*server.sockets[0].getsockname(), http=True) as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def url(proxy: FaultProxy) -> AsyncIterator[str]:
    async with serve_faults({"storage": proxy}) as url:
        yield url


async def call(url: str, verb: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(verb, f"{url}{path}", json=body, headers=headers) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def get(proxy: FaultProxy, request: bytes = b"GET / HTTP/1.1\r\n\r\n") -> bytes:
    reader, writer = await asyncio.open_connection(*proxy.address)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(len(ANSWER)), 10)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_toxic_is_added_read_changed_and_removed_as_toxiproxys_clients_do_it(
    proxy: FaultProxy, url: str
) -> None:
    sent = {"type": "latency", "attributes": {"latency": 100}}
    made = {
        "attributes": {"latency": 100, "jitter": 0},
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1.0,
    }
    assert await call(url, "POST", "/proxies/storage/toxics", sent) == (200, made)
    assert await call(url, "GET", "/proxies/storage/toxics/latency_downstream") == (200, made)
    status, changed = await call(
        url, "POST", "/proxies/storage/toxics/latency_downstream", {"attributes": {"jitter": 5}, "toxicity": 0.5}
    )
    assert status == 200
    assert changed == {**made, "attributes": {"latency": 100, "jitter": 5}, "toxicity": 0.5}
    assert proxy.toxics == [Latency(latency=100, jitter=5, toxicity=0.5)]
    assert await call(url, "GET", "/proxies/storage/toxics") == (200, [changed])
    assert await call(url, "DELETE", "/proxies/storage/toxics/latency_downstream") == (204, None)
    assert proxy.toxics == []


async def test_proxies_are_listed_disabled_enabled_and_reset(proxy: FaultProxy, url: str) -> None:
    listed = {
        "name": "storage",
        "listen": f"127.0.0.1:{proxy.port}",
        "upstream": f"127.0.0.1:{proxy.server_address[1]}",
        "enabled": True,
        "toxics": [],
    }
    assert await call(url, "GET", "/proxies") == (200, {"storage": listed})
    assert await call(url, "POST", "/proxies/storage", {"enabled": False}) == (
        200,
        {**listed, "enabled": False, "toxics": [down_document()]},
    )
    with pytest.raises(ConnectionRefusedError):
        await get(proxy)
    assert (await call(url, "PATCH", "/proxies/storage", {"enabled": True}))[1] == listed
    assert await get(proxy) == ANSWER
    proxy.add(Timeout(timeout=0))
    proxy.add(Down())
    assert await call(url, "POST", "/reset") == (204, None)
    assert proxy.toxics == []
    assert (await call(url, "GET", "/version"))[0] == 200


def down_document() -> dict[str, object]:
    return {"attributes": {}, "name": "down", "type": "down", "stream": "downstream", "toxicity": 1.0}


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "says"),
    [
        ("GET", "/proxies/nope", None, 404, "proxy not found"),
        ("DELETE", "/proxies/storage/toxics/nope", None, 404, "toxic not found"),
        ("POST", "/proxies/storage/toxics", {"type": "bore"}, 400, "invalid toxic type: "),
        (
            "POST",
            "/proxies/storage/toxics",
            {"type": "slicer", "stream": "x"},
            400,
            "stream was invalid, can be either",
        ),
        ("POST", "/proxies/storage/toxics", [1], 400, "bad request body: it is no JSON object"),
        ("POST", "/proxies/storage/toxics", {"type": "bandwidth"}, 400, "bad request body: bandwidth: rate must be"),
        (
            "POST",
            "/proxies/storage/toxics",
            {"type": "down", "toxicity": 2},
            400,
            "bad request body: down: down applies",
        ),
        (
            "POST",
            "/proxies/storage/toxics",
            {"type": "latency", "attributes": {"delay": 1}},
            400,
            "bad request body: latency has no delay; there are latency, jitter",
        ),
        ("POST", "/proxies/storage/toxics", {"type": "timeout"}, 409, "toxic already exists: timeout_downstream"),
        ("POST", "/proxies", {"name": "x"}, 403, "the proxies here are fixed"),
        ("POST", "/proxies/storage", {"upstream": "x"}, 400, "bad request body: 'x' is no HOST:PORT"),
        (
            "POST",
            "/proxies/storage",
            {"enabled": "false"},
            400,
            "bad request body: enabled is 'false'; it must be a bool",
        ),
        ("POST", "/proxies/storage", {"enabled": 0}, 400, "bad request body: enabled is 0; it must be a boolean"),
        ("GET", "/nothing", None, 404, "Not Found"),
    ],
)
async def test_what_is_wrong_is_answered_as_toxiproxy_answers_it(
    proxy: FaultProxy, url: str, verb: str, path: str, body: object, status: int, says: str
) -> None:
    proxy.add(Timeout(timeout=0))
    answered, document = await call(url, verb, path, body)
    assert (answered, document["status"]) == (status, status)
    assert document["error"].startswith(says)


async def test_a_page_in_a_browser_breaks_nothing(proxy: FaultProxy, url: str) -> None:
    for headers in (
        {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
        {"User-Agent": "curl/8", "Origin": "http://elsewhere.example"},
        {"User-Agent": "curl/8", "Sec-Fetch-Site": "same-origin"},
    ):
        assert (await call(url, "POST", "/proxies/storage", {"enabled": False}, **headers))[0] == 403
    assert not proxy.is_down


async def test_a_proxy_is_not_disabled_by_a_name_that_another_toxic_has(proxy: FaultProxy, url: str) -> None:
    proxy.add(Latency(latency=1, name="down"))
    status, document = await call(url, "POST", "/proxies/storage", {"enabled": False})
    assert (status, document["error"]) == (409, "toxic already exists: down")


async def test_a_step_that_somebody_has_taken_already_is_passed_over(proxy: FaultProxy) -> None:
    passed_over: list[Step] = []
    steps: list[Step] = [
        Add(0.0, Down()),
        Remove(0.0, "gone"),
        Remove(0.0, "down"),
        Add(0.0, Latency(latency=1, name="slow")),
    ]
    proxy.add(Latency(latency=1, name="slow"))
    await run_schedule(proxy, steps, passed_over=passed_over.append)
    assert passed_over == [steps[1], steps[3]]
    assert not proxy.is_down


async def test_a_response_is_lost_on_demand_and_the_record_says_so_without_secrets(
    proxy: FaultProxy, url: str, tmp_path: Path
) -> None:
    await FaultClient(url).lose_response("storage", {"method": "put", "path": "/c/"})
    head = b"?sv=1&sig=abc%3D HTTP/1.1\r\nAuthorization: SharedKey me:hush\r\nx-ms-copy-source: http://a/b?sig=hush\r\n\r\n"
    failures: list[OSError] = []
    with Record(tmp_path / "record.jsonl", failures.append) as record:
        proxy.http.observe = record
        assert await get(proxy, b"GET /c/b" + head) == ANSWER
        with pytest.raises(ConnectionResetError):
            await get(proxy, b"PUT /c/b" + head)
    assert not failures
    assert stat.S_IMODE((tmp_path / "record.jsonl").stat().st_mode) == 0o600
    text = (tmp_path / "record.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["method"], line["status"], line["response_lost"]) for line in lines] == [
        ("GET", 201, False),
        ("PUT", 201, True),
    ]
    assert lines[0]["query"] == "sv=1&sig=***"
    assert ["Authorization", "***"] in lines[0]["headers"]
    assert not any(secret in text for secret in ("hush", "abc"))
    assert (await call(url, "GET", "/proxies/storage/lost_responses"))[1] == [
        {"connection": 2, "method": "PUT", "path": "/c/b"}
    ]


async def test_a_record_that_cannot_be_written_ends_and_the_proxy_goes_on(proxy: FaultProxy) -> None:
    failures: list[OSError] = []
    with Record(Path("/dev/full"), failures.append) as record:
        proxy.http.observe = record
        assert await get(proxy) == ANSWER
        assert await get(proxy) == ANSWER
    assert [failure.errno for failure in failures] == [errno.ENOSPC]


@pytest.mark.parametrize(
    "name",
    [
        "X-Api-Key",
        "api-key",
        "x-functions-key",
        "Ocp-Apim-Subscription-Key",
        "Proxy-Authorization",
        "Cookie",
        "x-ms-encryption-key",
    ],
)
def test_headers_that_carry_keys_are_masked(name: str) -> None:
    assert recorded(headers=((name, "hush"),))["headers"] == [[name, "***"]]


@pytest.mark.parametrize(
    "key", ["sig", "code", "TOKEN", "access_token", "api_key", "Key", "subscription-key", "Subscription-Key"]
)
def test_query_items_that_carry_keys_are_masked_wherever_a_url_is(key: str) -> None:
    assert recorded(query=f"{key}=hush&sv=1")["query"] == f"{key}=***&sv=1"
    assert recorded(query=f"a=1&{key}=hush")["query"] == f"a=1&{key}=***"
    assert recorded(query=f"to=http%3A%2F%2Fa%3Fsv%3D1%26{key}%3Dhush&b=2")["query"].endswith(f"%26{key}%3D***&b=2")
    source = ("x-ms-copy-source", f"http://a/b?{key}=hush&sv=1")
    assert recorded(headers=(source,))["headers"] == [["x-ms-copy-source", f"http://a/b?{key}=***&sv=1"]]


def test_what_only_resembles_a_key_is_not_masked() -> None:
    path, query = "/rows/key=7/a.parquet", "monkey=1&postcode=2&keys=3&$skiptoken=4"
    document = recorded(path, query)
    assert (document["path"], document["query"]) == (path, query)


def recorded(path: str = "/", query: str = "", headers: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    return exchange_document(Exchange(Request(1, "GET", path, query, headers), 200))


def test_a_script_is_read_and_checked_before_it_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(
        "- {at: 5, remove: slow}\n"
        "- {at: 1, add: {type: latency, name: slow, attributes: {latency: 500}}}\n"
        "- {at: 6, lose_response: {method: PUT}}\n"
    )
    remove, add, lose = read_script(script)
    assert (remove, add) == (Remove(5, "slow"), Add(1, Latency(latency=500, name="slow")))
    assert isinstance(lose, Lose)
    for text, says in (
        ("- {at: 1", "is neither YAML nor JSON in line"),
        ("at: 1", "a script is a list of steps"),
        ("- {at: 1, add: {type: x}}", "step 1: 'x' is no type of toxic"),
        ("- {at: -1, remove: x}", "step 1: at is -1; it must be seconds from the start"),
        ("- {at: 1, remove: x}", "at 1, there is no x to remove"),
        ("- {at: 1, add: {type: latency, attributes: {latency: .nan}}}", "step 1: latency is nan; it must be a number"),
        ("- {at: 1, add: {type: limit_data, attributes: {bytes: .inf}}}", "step 1: bytes is inf; it must be a number"),
        ("- {at: 1, add: {type: latency, attributes: {1: 2}}}", "step 1: latency has no 1; there are"),
        ("- {at: 1, lose_response: {1: 2, x: 3}}", "step 1: a lost response has no 1, x; there are"),
        ("[{at: 1, add: {type: down}}, {at: 2, add: {type: down}}]", "at 2, down is there already; remove it first"),
    ):
        script.write_text(text)
        with pytest.raises(UserError, match=says) as caught:
            read_script(script)
        assert "\n" not in str(caught.value)


async def test_a_port_that_another_proxy_has_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(OSError, match="in use"):
        async with run_fault_proxy("127.0.0.1", 1, port=proxy.port):
            pass


@contextlib.contextmanager
def in_background(work: contextlib.AbstractAsyncContextManager[str]) -> Iterator[str]:
    """On a loop and thread of its own: a command has the main thread for itself."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(work.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(work.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[str]:
    async with run_fault_proxy("127.0.0.1", 9, http=True) as proxy, serve_faults({"storage": proxy}) as url:
        yield url


def test_the_commands_do_it_in_words() -> None:
    with in_background(served()) as url:

        def edgeweir(*arguments: str) -> tuple[int, str]:
            result = CliRunner().invoke(build_app(), ["fault", *arguments, "--api", url])
            return result.exit_code, result.output

        options = ("--stream", "upstream", "--toxicity", "0.5", "--name", "slow")
        slow = "slow: latency latency=500 jitter=50 upstream toxicity=0.5\n"
        assert edgeweir("add", "storage", "latency", "latency=500", "jitter=50", *options) == (0, slow)
        assert edgeweir("add", "storage", "down") == (0, "down\n")
        code, listed = edgeweir("list")
        assert (code, listed.splitlines()[1:]) == (0, [f"  {slow.strip()}", "  down"])
        assert edgeweir("remove", "storage", "slow") == (0, "")
        assert edgeweir("remove", "storage", "slow") == (2, "edgeweir fault remove: toxic not found\n")
        assert edgeweir("add", "storage", "latency", "latency=soon") == (
            2,
            "edgeweir fault add: 'latency=soon' is no attribute; write for example latency=500\n",
        )
        assert edgeweir("add", "storage", "latency", "latency=inf")[0] == 2
        assert edgeweir("add", "storage", "timeout", "--toxicity", "nan") == (
            2,
            "edgeweir fault add: toxicity is nan; it must be from 0 to 1\n",
        )
        assert edgeweir("lose-response", "storage", "--method", "PUT", "--nth", "0") == (0, "")
        assert edgeweir("reset") == (0, "")
        assert len(edgeweir("list")[1].splitlines()) == 1


def test_a_server_whose_name_is_unknown_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    result = CliRunner().invoke(build_app(), ["proxy", "0", "nowhere.invalid:80"])
    says = "edgeweir proxy: cannot forward to nowhere.invalid:80: Name or service not known\n"
    assert (result.exit_code, result.output) == (2, says)


def test_a_server_whose_name_is_none_is_refused_at_once() -> None:
    result = CliRunner().invoke(build_app(), ["proxy", "0", "a..b:80"])
    assert (result.exit_code, result.output) == (
        2,
        "edgeweir proxy: cannot forward to a..b:80: 'a..b' is no name of a host\n",
    )
