"""A local IoT Edge runtime: an edgeHub-compatible MQTT server, the workload API and a control API, all on loopback.

In a test or a program (one event loop, one process):

    async with LocalEdge(RuntimeConfig(state_dir=folder)) as edge:
        environment = await edge.add_module("scorer")       # IOTEDGE_* for the module's process
        device = await edge.add_device("pump-7")            # connection string with GatewayHostName
        await edge.apply_manifest(json.loads(manifest))     # modules, desired properties, routes, MaxConnectedClients
        edge.set_edge_hub_config({"schemaVersion": "1.1", "routes": {...}, "storeAndForwardConfiguration": {...}})
        version = edge.set_module_desired("scorer", {"bundle": "models/current"})
        edge.module_reported("scorer")
        status, payload = await edge.invoke_method("scorer", "model_info", {})
        edge.stats()                                        # queues by endpoint and priority, clients, counters

`edge.gateway_host` (an address in 127.0.0.0/8, port 8883) is where clients connect, `edge.ca_file` what they trust,
`edge.control_socket` and `<state>/run/control.sock` the control API, `edge.upstream_file` what went to `$upstream`.

A module, with the official SDK or any other client, needs nothing but `environment`. A device:

    IoTHubDeviceClient.create_from_connection_string(device, server_verification_cert=edge.ca_file.read_text())

The SDK blocks its caller while it is built and while a handler is set. In a program that holds both the edge and SDK
clients, do those two in `asyncio.to_thread`, or the edge cannot answer.

As a process that can be killed and started again on the same folder, address and certificates:

    python -m simulator.runtime --state DIR --manifest FILE [--module ID]... [--time-scale 10]

It prints one line of JSON when it is ready: gateway_host, port, device_id, ca_file, control_socket, upstream_file.

Control API over the Unix socket (shapes of IoT Hub's service REST): GET/PATCH/PUT /twins/{d}[/modules/{m}], POST
/twins/{d}[/modules/{m}]/methods, GET/PUT/DELETE /devices/{d}[/modules/{m}] (answers authentication.symmetricKey), GET
/devices/{d}/modules, POST /devices/{d}/applyConfigurationContent, GET /edgeweir/stats, and GET
/edgeweir/modules/{m}/environment. Connect to the path that `<state>/run` links to: socket paths must be short.

EDGEWEIR_KILL_AT (`kill_points`) and EDGEWEIR_SERVER_CERTIFICATE_SECS make such a process fail for tests.

`time_scale` divides edgeHub's own waits: acknowledge time-out (30 s), retry back-off (1 to 60 s), times to live, token
checks and their grace. Keep-alive and token expiry are the client's and are never divided.
"""

from simulator.runtime.config import RuntimeConfig, RuntimeFailed
from simulator.runtime.edge import LocalEdge
from simulator.runtime.methods import MethodFailed
from simulator.runtime.routing.errors import ConfigError, RouteCompileError, RoutingError

__all__ = [
    "ConfigError",
    "LocalEdge",
    "MethodFailed",
    "RouteCompileError",
    "RoutingError",
    "RuntimeConfig",
    "RuntimeFailed",
]
