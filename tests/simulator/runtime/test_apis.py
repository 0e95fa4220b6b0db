"""The workload API, the control API, certificates, and several runtimes beside each other."""

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from simulator.runtime import ConfigError, LocalEdge, RouteCompileError, RuntimeConfig, RuntimeFailed
from simulator.runtime.codec import Publish
from simulator.runtime.sas import sign
from tests.simulator.runtime.conftest import ROUTES, hub_config
from tests.simulator.runtime.raw_client import RawClient
from tests.waiting import until

API = "?api-version=2022-08-03"


async def call(socket: str | Path, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """(status, JSON) over a Unix socket; the body travels without a content type, as the SDK sends it."""
    data = None if body is None else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), skip_auto_headers=["Content-Type"]) as http,
        http.request(method, f"http://edge{path}", data=data) as answer,
    ):
        text = await answer.read()
        return answer.status, json.loads(text) if text else None


def workload_socket(environment: dict[str, str]) -> str:
    return environment["IOTEDGE_WORKLOADURI"].removeprefix("unix://")


async def test_the_workload_api_signs_with_the_modules_own_key(edge: LocalEdge) -> None:
    socket = workload_socket(edge.module_environment("m"))
    identity = edge.registry.get("local-edge", "m")
    assert identity is not None
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": base64.b64encode(b"text").decode()}
    status, answer = await call(socket, "POST", f"/modules/m/genid/any/sign{API}", body)
    assert (status, answer) == (200, {"digest": base64.b64encode(sign(identity.keys[0], "text")).decode()})


async def test_the_workload_api_gives_the_trust_bundle_and_the_modules(edge: LocalEdge) -> None:
    socket = workload_socket(edge.module_environment("m"))
    assert await call(socket, "GET", f"/trust-bundle{API}") == (200, {"certificate": edge.ca_file.read_text()})
    status, answer = await call(socket, "GET", f"/modules{API}")
    assert status == 200
    assert {"m", "sender", "$edgeHub", "$edgeAgent"} == {module["name"] for module in answer["modules"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/trust-bundle?api-version=1999-01-01", None, 400),
        ("GET", "/trust-bundle", None, 400),
        ("GET", f"/nothing{API}", None, 404),
        ("GET", f"/manifest-trust-bundle{API}", None, 404),
        ("POST", f"/modules/sender/genid/g/sign{API}", {"data": "eA=="}, 403),
        ("POST", f"/modules/m/genid/g/sign{API}", {}, 400),
        ("POST", f"/modules/m/genid/g/sign{API}", {"data": "not base64!"}, 400),
        ("POST", f"/modules/m/genid/g/sign{API}", None, 400),
    ],
)
async def test_workload_errors_have_a_status_and_a_message(
    edge: LocalEdge, method: str, path: str, body: object, status: int
) -> None:
    found, answer = await call(workload_socket(edge.module_environment("m")), method, path, body)
    assert found == status
    assert list(answer) == ["message"]


async def test_edgehub_gets_a_server_certificate(edge: LocalEdge) -> None:
    socket = workload_socket(edge.module_environment("$edgeHub"))
    body = {"commonName": "gateway.local", "expiration": "2030-01-01T00:00:00Z"}
    status, answer = await call(socket, "POST", f"/modules/{quote('$edgeHub')}/genid/g/certificate/server{API}", body)
    assert status == 201
    assert answer["privateKey"]["bytes"].startswith("-----BEGIN PRIVATE KEY-----")
    names = x509.load_pem_x509_certificate(answer["certificate"].encode()).extensions
    alternatives = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["gateway.local", "edgehub"]


async def test_the_server_certificate_names_address_and_host_and_keys_are_private(tmp_path: Path) -> None:
    config = RuntimeConfig(state_dir=tmp_path, gateway_host="localhost", address=None)
    async with LocalEdge(config) as edge:
        leaf, authority = x509.load_pem_x509_certificates(edge.pki.chain_file.read_bytes())
        root = x509.load_pem_x509_certificate(edge.ca_file.read_bytes())
        leaf.verify_directly_issued_by(authority)
        authority.verify_directly_issued_by(root)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "edgehub"]
        assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == [edge.address]
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        for file in edge.pki.key_file.parent.glob("*-key.pem"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_control_api_has_the_shapes_of_the_service(edge: LocalEdge) -> None:
    socket = edge.state_dir.joinpath("run").readlink() / "control.sock"
    status, twin = await call(socket, "PATCH", "/twins/local-edge/modules/m", {"properties": {"desired": {"a": 1}}})
    assert status == 200
    assert twin["properties"]["desired"] == {"a": 1, "$version": 2}
    assert (twin["deviceId"], twin["moduleId"], twin["connectionState"]) == ("local-edge", "m", "Disconnected")
    status, device = await call(socket, "PUT", "/devices/pump-9", {"deviceId": "pump-9"})
    assert status == 200
    assert base64.b64decode(device["authentication"]["symmetricKey"]["primaryKey"])
    status, module = await call(socket, "PUT", "/devices/local-edge/modules/new", {})
    assert (status, module["moduleId"]) == (200, "new")
    assert (await call(socket, "GET", "/edgeweir/modules/new/environment"))[1]["IOTEDGE_MODULEID"] == "new"
    assert len((await call(socket, "GET", "/devices/local-edge/modules"))[1]) == 5
    assert (await call(socket, "DELETE", "/devices/pump-9")) == (204, None)
    status, error = await call(socket, "GET", "/devices/pump-9")
    assert (status, error["Message"]) == (404, "ErrorCode:DeviceNotFound;device pump-9 does not exist")
    assert (await call(socket, "GET", "/edgeweir/stats"))[1]["queued_total"] == 0


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/devices/pump-9", {"authentication": None}, "authentication"),
        ("/devices/pump-9", {"authentication": "sas"}, "authentication"),
        ("/devices/pump-9", {"authentication": {"symmetricKey": []}}, "symmetricKey"),
        ("/twins/local-edge/modules/m", {"properties": None}, "properties"),
    ],
)
async def test_a_part_of_a_body_that_is_no_object_is_named(
    edge: LocalEdge, path: str, body: dict[str, object], key: str
) -> None:
    status, error = await call(edge.control_socket, "PUT", path, body)
    assert (status, error["Message"]) == (400, f"ErrorCode:ArgumentInvalid;{key} must be a JSON object")
    assert edge.registry.get("pump-9") is None


async def test_methods_through_the_control_api(edge: LocalEdge) -> None:
    path = "/twins/local-edge/modules/m/methods"
    assert (await call(edge.control_socket, "POST", path, {"methodName": "ping"}))[0] == 404
    bad = {"methodName": "ping", "responseTimeoutInSeconds": 1}
    assert (await call(edge.control_socket, "POST", path, bad))[0] == 400
    async with RawClient(edge, "local-edge", "m") as module:
        await module.subscribe("$iothub/methods/POST/#")
        answer = asyncio.create_task(call(edge.control_socket, "POST", path, {"methodName": "ping", "payload": [1]}))
        request = await module.expect(Publish)
        assert request.payload == b"[1]"
        module.publish(f"$iothub/methods/res/200/{request.topic[request.topic.index('?') :]}", b'{"n":1.10}')
        assert await answer == (200, {"status": 200, "payload": {"n": 1.1}})


async def test_a_manifest_makes_modules_sets_twins_and_limits(edge: LocalEdge) -> None:
    manifest = {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired": {
                    "modules": {"scorer": {"type": "docker"}},
                    "systemModules": {"edgeHub": {"env": {"MaxConnectedClients": {"value": "250"}}}},
                }
            },
            "$edgeHub": {"properties.desired": hub_config(r="FROM /* INTO $upstream")},
            "scorer": {"properties.desired": {"bundle": "models/current"}},
        }
    }
    path = "/devices/local-edge/applyConfigurationContent"
    assert await call(edge.control_socket, "POST", path, manifest) == (204, None)
    assert edge.hub.max_clients == 250
    assert edge.hub.twins.get("local-edge/scorer").desired == {"bundle": "models/current"}
    assert edge.module_environment("scorer")["IOTEDGE_MODULEID"] == "scorer"
    assert edge.stats()["routes_upstream"]
    manifest["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]["r"] = "FROM nowhere"
    status, error = await call(edge.control_socket, "POST", path, manifest)
    assert status == 400
    assert "routes.r" in error["Message"]
    assert edge.stats()["routes_upstream"]


async def test_a_refused_configuration_is_reported_and_the_old_routes_stay(edge: LocalEdge) -> None:
    with pytest.raises(ConfigError, match=r"routes\.bad"):
        edge.set_edge_hub_config(hub_config(bad="FROM /* INTO"))
    status = edge.module_reported("$edgeHub")["lastDesiredStatus"]
    assert status["code"] == 400
    assert "routes.bad" in status["description"]
    with pytest.raises(RouteCompileError, match="route 'bad'"):
        edge.set_edge_hub_config(hub_config(bad="FROM /* WHERE a > 3 INTO $upstream"))
    # A type error surfaces when routes are applied, after the status was reported.
    assert edge.module_reported("$edgeHub")["lastDesiredStatus"]["code"] == 200
    async with RawClient(edge, "leaf") as leaf:
        await leaf.publish_acked(leaf.telemetry())
        assert list(edge.stats()["queues"]) == ["m/one"]


async def test_upstream_is_a_readable_file_and_counts_as_delivered(edge: LocalEdge) -> None:
    async with RawClient(edge, "local-edge", "sender") as sender:
        await sender.publish_acked(sender.telemetry("%24.on=up&%24.mid=1&k=v"), '{"ü":1}'.encode())
        await sender.publish_acked(sender.telemetry("%24.on=up"), b"\xff\x00")
        await until(lambda: edge.stats()["messages_delivered"].get("$upstream") == 2)
    text, binary = map(json.loads, edge.upstream_file.read_text().splitlines())
    assert (text["device"], text["module"], text["body"]) == ("local-edge", "sender", '{"ü":1}')
    assert text["properties"] == {"k": "v"}
    assert text["system"]["messageId"] == "1"
    assert base64.b64decode(binary["body_base64"]) == b"\xff\x00"
    assert edge.stats()["queued_total"] == 0


async def test_parallel_runtimes_have_addresses_and_identities_of_their_own(tmp_path: Path) -> None:
    async with (
        LocalEdge(RuntimeConfig(state_dir=tmp_path / "a")) as one,
        LocalEdge(RuntimeConfig(state_dir=tmp_path / "b")) as two,
    ):
        assert one.address != two.address
        assert one.config.port == two.config.port == 8883
        for edge in (one, two):
            edge.set_edge_hub_config(ROUTES)
            await edge.add_device("leaf")
        stranger = RawClient(two, "leaf")
        own = RawClient(one, "leaf")
        assert (await stranger.connect(password=own.token().encode())).code == 5
        assert (await own.connect()).code == 0
    async with LocalEdge(RuntimeConfig(state_dir=tmp_path / "a")) as again:
        assert again.address == one.address


async def test_a_long_state_path_and_a_taken_address_are_no_riddle(tmp_path: Path) -> None:
    state = tmp_path / ("deep" * 30) / ("deeper" * 10)
    async with LocalEdge(RuntimeConfig(state_dir=state)) as edge:
        assert len(str(edge.control_socket)) < 100
        assert (await call(edge.control_socket, "GET", "/edgeweir/stats"))[0] == 200
        with pytest.raises(RuntimeFailed, match="is taken; stop what listens there, or use another state folder"):
            await LocalEdge(RuntimeConfig(state_dir=tmp_path / "other", address=edge.address)).__aenter__()
        with pytest.raises(RuntimeFailed, match="another runtime uses"):
            await LocalEdge(RuntimeConfig(state_dir=state)).__aenter__()
        for address in ("0.0.0.0", "localhost", "10.0.0.1"):
            with pytest.raises(RuntimeFailed, match=r"choose one in 127\.0\.0\.0/8"):
                await LocalEdge(RuntimeConfig(state_dir=tmp_path / "other", address=address)).__aenter__()


async def test_a_removed_identity_loses_its_connection_and_its_way_in(edge: LocalEdge) -> None:
    client = RawClient(edge, "leaf")
    await client.connect()
    await edge.remove_identity("leaf")
    await client.expect_close()
    assert (await RawClient(edge, "leaf").connect(password=b"x")).code == 5
    with pytest.raises(KeyError):
        edge.connection_string("leaf")
