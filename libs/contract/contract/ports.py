"""The inputs and outputs of our modules; the deployment's routes connect them."""

from typing import Final, NamedTuple

from contract.lanes import LANES, SITE_ONLY


class Ports(NamedTuple):
    inputs: frozenset[str]
    outputs: frozenset[str]


PORTS: Final[dict[str, Ports]] = {
    "scorer": Ports(frozenset({"telemetry"}), frozenset({"scores", "rejected"})),
    "anomaly_router": Ports(frozenset({"scores"}), frozenset(LANES)),
    "uploader": Ports(frozenset(LANES), frozenset()),
}

# Only what the compliance policy was applied to may go to the cloud; nothing else may even reach `$upstream`.
UPSTREAM_ALLOWED: Final[frozenset[tuple[str, str]]] = frozenset(
    ("anomaly_router", lane) for lane in LANES if lane not in SITE_ONLY
)
