"""Sources, sinks and the `$edgeHub` configuration (MessageSourceTest, RouteFactoryTest, EdgeHubConfigParser)."""

from typing import Any

import pytest

from simulator.runtime.messages import Message
from simulator.runtime.routing.errors import ConfigError, RouteCompileError
from simulator.runtime.routing.hub_config import DEFAULT_PRIORITY, default_config, parse_hub_config
from simulator.runtime.routing.routes import Hop, Router
from tests.simulator.runtime.conftest import hub_config


def hops(source: str, **routes: Any) -> list[Hop]:
    return Router(parse_hub_config(hub_config(**routes))).hops(Message(source, {}, {}, b""))


@pytest.mark.parametrize(
    ("source", "message", "expected"),
    [
        ("/*", "/messages/", True),
        ("/*", "/twinChangeNotifications/", True),
        ("/messages/*", "/messages/", True),
        ("/messages/*", "/messages/modules/a/outputs/o/", True),
        ("/messages/*", "/twinChangeNotifications/", False),
        ("/messages", "/messages/modules/a/", True),
        ("/MESSAGES/Modules/A/*", "/messages/modules/a/outputs/o/", True),
        ("/messages/modules/a/outputs/out", "/messages/modules/a/outputs/out2/", False),
        ("/messages/modules/a/outputs/out", "/messages/modules/a/outputs/out/", True),
        ("/messages/modules/a*", "/messages/modules/ab/", False),
        ("/messages/modules/a*", "/messages/modules/a/outputs/o/", True),
        ("/messages/modules/*/outputs/*", "/messages/modules/a/outputs/o/", False),
        ("/messages/modules/a", "/messages/", False),
    ],
)
def test_sources_match_as_case_insensitive_prefixes(source: str, message: str, expected: bool) -> None:
    assert bool(hops(message, r=f"FROM {source} INTO $upstream")) is expected


@pytest.mark.parametrize(
    "sink",
    ["$upstream", "$UpStream", 'BrokeredEndpoint("/modules/m/inputs/i")', "brokeredendpoint('/modules/m/inputs/i')"],
)
def test_sinks_are_upstream_or_one_modules_input(sink: str) -> None:
    (hop,) = hops("/messages/", r=f"SELECT * from /messages/* into {sink}")
    assert hop.endpoint in ("$upstream", "m/i")


@pytest.mark.parametrize(
    "sink",
    [
        "$downstream",
        'Endpoint("/modules/m/inputs/i")',
        'BrokeredEndpoint("/modules/m")',
        'BrokeredEndpoint("/modules/m/inputs/")',
        'BrokeredEndpoint("modules/m/inputs/i")',
    ],
)
def test_other_sinks_do_not_compile(sink: str) -> None:
    with pytest.raises(RouteCompileError, match="route 'r'"):
        hops("/messages/", r=f"FROM /* INTO {sink}")


def test_one_endpoint_gets_one_delivery_with_the_smallest_priority_and_its_time_to_live() -> None:
    target = 'INTO BrokeredEndpoint("/modules/m/inputs/i")'
    found = hops(
        "/messages/",
        a=f"FROM /* {target}",
        b={"route": f"FROM /messages/* {target}", "priority": 3, "timeToLiveSecs": 60},
        c={"route": f"FROM /messages/* {target}", "priority": 7},
        d='FROM /* INTO BrokeredEndpoint("/modules/m/inputs/other")',
    )
    assert set(found) == {Hop("m/i", 3, 60.0), Hop("m/other", DEFAULT_PRIORITY, 7200.0)}


def test_without_configuration_everything_goes_upstream() -> None:
    (hop,) = Router(default_config()).hops(Message("/messages/", {}, {}, b""))
    assert hop.endpoint == "$upstream"


def test_a_negative_global_time_to_live_never_expires() -> None:
    (hop,) = Router(parse_hub_config(hub_config(ttl_secs=-1, r="FROM /* INTO $upstream"))).hops(
        Message("/messages/", {}, {}, b"")
    )
    assert hop.ttl_secs is None


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.1.0", "1.2", "1.3"])
def test_schema_versions_1_0_to_1_3_are_read(version: str) -> None:
    assert parse_hub_config(hub_config(r="FROM /* INTO $upstream") | {"schemaVersion": version}).routes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schemaVersion": "1"}, "schemaVersion"),
        ({"schemaVersion": None}, "schemaVersion"),
        ({"schemaVersion": "2.0"}, "schemaVersion"),
        ({"schemaVersion": "1.4"}, "schemaVersion"),
        ({"routes": None}, "routes"),
        ({"routes": []}, "routes"),
        ({"routes": {"a": ""}}, "routes.a"),
        ({"routes": {"a": 3}}, "routes.a"),
        ({"routes": {"a": {}}}, "routes.a.route"),
        ({"routes": {"a": {"route": "FROM /* INTO $upstream", "priority": 10}}}, "routes.a.priority"),
        ({"routes": {"a": {"route": "FROM /* INTO $upstream", "priority": "1"}}}, "routes.a.priority"),
        ({"routes": {"a": {"route": "FROM /* INTO $upstream", "timeToLiveSecs": -1}}}, "routes.a.timeToLiveSecs"),
        ({"routes": {"a": "FROM /messages/1 INTO $upstream"}}, "routes.a"),
        ({"routes": {"a": "FROM /* WHERE INTO $upstream"}}, "routes.a"),
        ({"routes": {"a": "FROM /* INTO"}}, "routes.a"),
        ({"storeAndForwardConfiguration": None}, "storeAndForwardConfiguration"),
        ({"storeAndForwardConfiguration": {"timeToLiveSecs": "x"}}, "timeToLiveSecs"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_hub_config(hub_config(r="FROM /* INTO $upstream") | change)


def test_schema_1_0_takes_strings_only_and_skips_empty_ones() -> None:
    config = parse_hub_config({"schemaVersion": "1.0", "routes": {"a": "", "b": "FROM /* INTO $upstream"}})
    assert [route.name for route in config.routes] == ["b"]
    with pytest.raises(ConfigError, match="not a string"):
        parse_hub_config({"schemaVersion": "1.0", "routes": {"a": {"route": "FROM /* INTO $upstream"}}})
