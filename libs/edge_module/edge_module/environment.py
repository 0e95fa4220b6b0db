"""A module's environment, read once at the start. Every complaint is one line that says what to do."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_module.kill_points import parse_kill_at
from edge_module.sas import Sign, key_signer
from edge_module.wire import Address
from edge_module.workload import Workload

_EDGE_VARIABLES = (
    "IOTEDGE_IOTHUBHOSTNAME",
    "IOTEDGE_GATEWAYHOSTNAME",
    "IOTEDGE_DEVICEID",
    "IOTEDGE_MODULEID",
    "IOTEDGE_MODULEGENERATIONID",
    "IOTEDGE_WORKLOADURI",
    "IOTEDGE_APIVERSION",
)
_CONNECTION_STRING_KEYS = ("HostName", "GatewayHostName", "DeviceId", "ModuleId", "SharedAccessKey")


class BadEnvironment(Exception):
    """What is missing or wrong, in one line."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    address: Address
    gateway: str
    port: int
    workload: Workload | None  # None: signed with the key of EdgeHubConnectionString
    key_sign: Sign | None
    ca_file: Path | None
    state_dir: Path
    config_dir: Path
    site: str
    http_host: str
    http_port: int
    time_scale: float
    token_ttl_secs: float
    outbox_limit_bytes: int
    boot_id_file: Path
    log_level: str
    kill_at: str | None


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Raises BadEnvironment."""
    missing = [name for name in _EDGE_VARIABLES if not environ.get(name)]
    if not missing:
        return _from_edge(environ)
    if environ.get("EdgeHubConnectionString"):
        return _from_connection_string(environ)
    raise BadEnvironment(
        f"missing environment variable {', '.join(missing)}: start the module under the IoT Edge runtime or with"
        " `edgeweir run`, or set EdgeHubConnectionString and EdgeModuleCACertificateFile"
    )


def _from_edge(environ: Mapping[str, str]) -> Environment:
    address = Address(environ["IOTEDGE_IOTHUBHOSTNAME"], environ["IOTEDGE_DEVICEID"], environ["IOTEDGE_MODULEID"])
    try:
        workload = Workload(
            environ["IOTEDGE_WORKLOADURI"],
            module=address.module,
            generation=environ["IOTEDGE_MODULEGENERATIONID"],
            api_version=environ["IOTEDGE_APIVERSION"],
        )
    except ValueError as error:
        raise BadEnvironment(str(error)) from None
    return _common(environ, address, environ["IOTEDGE_GATEWAYHOSTNAME"], workload, None, None)


def _from_connection_string(environ: Mapping[str, str]) -> Environment:
    pairs = (part.partition("=") for part in environ["EdgeHubConnectionString"].split(";"))
    values = {key.strip(): value for key, _, value in pairs}
    missing = [key for key in _CONNECTION_STRING_KEYS if not values.get(key)]
    if missing:
        raise BadEnvironment(f"EdgeHubConnectionString lacks {', '.join(missing)}")
    ca_file = environ.get("EdgeModuleCACertificateFile")
    if not ca_file or not Path(ca_file).is_file():
        raise BadEnvironment(f"EdgeModuleCACertificateFile must name a PEM file, it is {ca_file!r}")
    try:
        sign = key_signer(values["SharedAccessKey"])
    except ValueError:
        raise BadEnvironment("SharedAccessKey in EdgeHubConnectionString is not base64") from None
    address = Address(values["HostName"], values["DeviceId"], values["ModuleId"])
    return _common(environ, address, values["GatewayHostName"], None, sign, Path(ca_file))


def _common(
    environ: Mapping[str, str],
    address: Address,
    gateway: str,
    workload: Workload | None,
    key_sign: Sign | None,
    ca_file: Path | None,
) -> Environment:
    kill_at = environ.get("EDGEWEIR_KILL_AT") or None
    try:
        if kill_at:
            parse_kill_at(kill_at)
    except ValueError as error:
        raise BadEnvironment(str(error)) from None
    return Environment(
        address=address,
        gateway=gateway,
        port=int(_number(environ, "EDGEWEIR_HUB_PORT", 8883, 1, 65535)),
        workload=workload,
        key_sign=key_sign,
        ca_file=ca_file,
        state_dir=Path(environ.get("EDGEWEIR_STATE_DIR") or "/var/lib/edgeweir"),
        config_dir=Path(environ.get("EDGEWEIR_CONFIG_DIR") or "/etc/edgeweir"),
        site=environ.get("EDGEWEIR_SITE") or address.device,
        http_host=environ.get("EDGEWEIR_HTTP_HOST") or "0.0.0.0",  # inside a container: its own network
        http_port=int(_number(environ, "EDGEWEIR_HTTP_PORT", 9600, 0, 65535)),
        time_scale=_number(environ, "EDGEWEIR_TIME_SCALE", 1.0, 0.001, 10_000.0),
        token_ttl_secs=_number(environ, "EDGEWEIR_SAS_TTL_SECS", 3600.0, 1.0, 86_400.0),
        outbox_limit_bytes=int(_number(environ, "EDGEWEIR_OUTBOX_MAX_BYTES", 256 * 1024 * 1024, 1, 2**50)),
        boot_id_file=Path(environ.get("EDGEWEIR_BOOT_ID_FILE") or "/proc/sys/kernel/random/boot_id"),
        log_level=environ.get("RuntimeLogLevel") or "info",
        kill_at=kill_at,
    )


def _number(environ: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadEnvironment(f"{name} is {text!r}; expected a number from {low:g} to {high:g}")
    return value
