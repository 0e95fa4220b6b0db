"""What an operator can set, through the module twin's desired properties."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True):
    policy_file: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="the policy, relative to the configuration folder"),
    ] = "policy.yaml"
    policy_sha256: Annotated[
        Annotated[str, Meta(pattern=r"^(sha256:)?[0-9a-f]{64}$")] | None,
        Meta(description="the only policy hash to accept; null accepts any"),
    ] = None
    episode_close_after_rows: Annotated[
        int,
        Meta(ge=1, le=100_000, description="scored rows without an anomaly that end an episode"),
    ] = 10
    episode_close_after_secs: Annotated[
        float,
        Meta(gt=0, le=31_536_000, description="time by the rows' own timestamps since the last anomaly that ends it"),
    ] = 600.0
    episode_idle_secs: Annotated[
        float,
        Meta(gt=0, le=31_536_000, description="running time without any row of the series that ends it"),
    ] = 900.0
    episode_rows_per_event: Annotated[
        int,
        Meta(ge=1, le=10_000, description="anomalous rows in one event; more go into a further `updated` event"),
    ] = 100
    insight_window_secs: Annotated[
        int,
        Meta(ge=1, le=86_400, description="length of an insight window, by the rows' own timestamps"),
    ] = 60
    insight_lateness_secs: Annotated[
        float,
        Meta(ge=0, le=86_400, description="how long after its end a window waits for late rows, by the rows' own time"),
    ] = 10.0
    insight_idle_secs: Annotated[
        float,
        Meta(gt=0, le=86_400, description="running time without any row of the series that closes its windows"),
    ] = 120.0
    max_series: Annotated[
        int,
        Meta(ge=1, le=100_000, description="series remembered; above it the longest silent are closed and forgotten"),
    ] = 10_000
