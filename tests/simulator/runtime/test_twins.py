"""Twins and methods, live and as pure rules."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.runtime import LocalEdge, MethodFailed
from simulator.runtime.codec import Puback, Publish
from simulator.runtime.twins import difference, merge
from tests.simulator.runtime.conftest import hub_config
from tests.simulator.runtime.raw_client import RawClient
from tests.waiting import until

RESPONSES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid={}"

_KEYS = st.text("abc", min_size=1, max_size=2)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(0, 2) | st.text("xy", max_size=1) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(_KEYS, inner, max_size=3),
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=4)


@given(_DOCUMENTS, _DOCUMENTS)
def test_the_difference_patches_one_document_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert json.dumps(merge(old, difference(old, new)), sort_keys=True) == json.dumps(new, sort_keys=True)


async def ask(client: RawClient, topic: str, payload: bytes) -> Publish:
    """The hub's answer to a twin request, acknowledged."""
    client.publish(topic, payload)
    answer = await client.expect(Publish)
    await client.expect(Puback)
    client.acknowledge()
    return answer


async def test_a_report_is_answered_with_204_and_an_empty_body(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(RESPONSES)
        answer = await ask(module, REPORT.format("r%201"), b'{"a":{"b":1,"c":[1,2]},"d":1}')
        assert (answer.topic, answer.payload) == ("$iothub/twin/res/204/?$rid=r 1", b"")
        await ask(module, REPORT.format(2), b'{"a":{"b":null,"c":[3]},"d":null}')
        answer = await ask(module, "$iothub/twin/GET/?$rid=3", b" ")
        document = {"desired": {"$version": 1}, "reported": {"a": {"c": [3]}, "$version": 3}}
        assert json.loads(answer.payload) == document


def _nested(depth: int) -> Any:
    return {"k": _nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        (_nested(11), 204),
        (_nested(12), 400),
        ({"a.b": 1}, 400),
        ({"$x": 1}, 400),
        ({"a b": 1}, 400),
        ({"a#": 1}, 400),
        ({"k" * 1025: 1}, 400),
        ({"a": "x" * 4096}, 204),
        ({"a": "x" * 4097}, 400),
        ({"a": 2**52}, 204),
        ({"a": 2**52 + 1}, 400),
        ({"a": [1, None]}, 400),
        ({f"k{i}": "x" * 4000 for i in range(9)}, 400),
        ([1], 400),
    ],
)
async def test_reports_are_validated_as_a_whole(edge: LocalEdge, patch: Any, status: int) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(RESPONSES)
        answer = await ask(module, REPORT.format(1), json.dumps(patch).encode())
        assert (answer.topic, answer.payload) == (f"$iothub/twin/res/{status}/?$rid=1", b"")
        assert bool(edge.module_reported("m")) is (status == 204)


async def test_a_report_without_rid_is_taken_and_not_answered(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(RESPONSES)
        await module.publish_acked("$iothub/twin/PATCH/properties/reported/", b'{"a":1}')
        assert module.received == []
        assert edge.module_reported("m") == {"a": 1}


async def test_a_report_travels_the_routes_as_a_twin_change(edge: LocalEdge) -> None:
    edge.set_edge_hub_config(hub_config(r="FROM /twinChangeNotifications/* INTO $upstream"))
    async with RawClient(edge, "local-edge", "m") as module:
        await module.publish_acked(REPORT.format(1), b'{"a":1}')
        await until(lambda: edge.upstream_file.exists())
        (line,) = edge.upstream_file.read_text().splitlines()
        found = json.loads(line)
        assert (found["device"], found["module"], found["body"]) == ("local-edge", "m", '{"a":1}')
        assert found["system"]["messageSchema"] == "twinChangeNotification"


async def test_a_desired_change_is_pushed_once_to_whoever_is_there_and_subscribed(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        edge.set_module_desired("m", {"early": 1})
        await module.subscribe(DESIRED)
        await module.settle()
        assert module.received == []
        edge.set_module_desired("m", {"a": {"b": 1}, "early": None})
        push = await module.expect(Publish)
        assert push.topic == "$iothub/twin/PATCH/properties/desired/?$version=3"
        assert json.loads(push.payload) == {"a": {"b": 1}, "early": None, "$version": 3}


async def test_what_changed_while_a_known_client_was_away_is_pushed_once_after_it_connects(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(RESPONSES, DESIRED)
        await ask(module, "$iothub/twin/GET/?$rid=1", b" ")
    await until(lambda: not edge.stats()["clients"])
    edge.set_module_desired("m", {"a": 1})
    edge.set_module_desired("m", {"a": 2, "b": 3})
    async with RawClient(edge, "local-edge", "m") as module:
        push = await module.expect(Publish)
        assert json.loads(push.payload) == {"a": 2, "b": 3, "$version": 3}


async def test_methods_reach_the_client_and_answers_match_in_any_case(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(METHODS)
        call = asyncio.create_task(edge.invoke_method("m", "do it", {"x": 1}))
        request = await module.expect(Publish)
        prefix, _, rid = request.topic.rpartition("/?$rid=")
        assert prefix == "$iothub/methods/POST/do it"
        assert json.loads(request.payload) == {"x": 1}
        await module.publish_acked("$iothub/methods/res/200/?$rid=unknown", b"{}")
        await module.publish_acked(f"$iothub/methods/res/207/?$rid={rid.upper()}", b'{"y":2}')
        assert await call == (207, {"y": 2})


async def test_a_method_ends_with_404_or_504_when_nobody_is_there_or_nobody_answers(edge: LocalEdge) -> None:
    with pytest.raises(MethodFailed) as missing:
        await edge.invoke_method("m", "ping")
    assert missing.value.status == 404
    async with RawClient(edge, "local-edge", "m") as module:
        with pytest.raises(MethodFailed) as deaf:
            await edge.invoke_method("m", "ping")
        assert deaf.value.status == 404
        await module.subscribe(METHODS)
        with pytest.raises(MethodFailed) as silent:
            await edge.invoke_method("m", "ping", response_timeout_secs=0.2)
        assert silent.value.status == 504


async def test_a_method_waits_for_its_target_as_long_as_the_caller_allows(edge: LocalEdge) -> None:
    call = asyncio.create_task(edge.invoke_method("m", "ping", connect_timeout_secs=10))
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe(METHODS)
        request = await module.expect(Publish)
        module.publish(f"$iothub/methods/res/fine/{request.topic[request.topic.index('?') :]}", b"null")
        assert await call == (400_000, None)
