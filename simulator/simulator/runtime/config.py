"""How a local edge is set up."""

from dataclasses import dataclass
from pathlib import Path

MQTT_PORT = 8883  # the device SDK's, and fixed there
DEFAULT_HUB_HOST = "local-hub.azure-devices.net"


class RuntimeFailed(Exception):
    """The runtime cannot start; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """All of it is fixed while the runtime runs; a restart on the same `state_dir` finds its address again."""

    state_dir: Path  # everything that must survive: store, certificates, upstream.jsonl
    device_id: str = "local-edge"
    hub_host_name: str = DEFAULT_HUB_HOST
    address: str | None = None  # loopback address to listen on; None takes the one of the last start, or a free one
    gateway_host: str | None = None  # the name clients connect to, if it is not the address; it must resolve to it
    also_named: tuple[str, ...] = ()  # further names and addresses that its certificate covers, of proxies before it
    port: int = MQTT_PORT
    time_scale: float = 1.0  # divides edgeHub's own waits (acknowledge time-out, back-off, time to live, token checks)
    max_clients: int = 100  # the manifest's MaxConnectedClients of edgeHub replaces it
    # Of the server certificate that is then made at each start; negative: it is over already. None: a year, kept.
    server_certificate_secs: float | None = None
    kill_at: str | None = None  # STEP:PASSES of kill_points at which the whole process kills itself

    def __post_init__(self) -> None:
        if self.time_scale <= 0:
            raise ValueError(f"time_scale is {self.time_scale}; it must be above 0")
