"""What the scorer's twin may say."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contract.bundle import Feature, Manifest, ModelFile, Threshold, Training, Window, sha256_digest

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]


class BareModel(msgspec.Struct, frozen=True):
    """What a bundle's manifest would say, for a bare .onnx file."""

    name: Annotated[_Name, Meta(description="name of the model")]
    version: Annotated[_Name, Meta(description="version of the model")]
    features: Annotated[tuple[Feature, ...], Meta(min_length=1, description="in the order of the model's input")]
    window_length: Annotated[int, Meta(ge=1, le=4096, description="rows in a window")]
    threshold: Annotated[float, Meta(description="a row is an anomaly when its score is greater")]
    window_stride: Annotated[int, Meta(ge=1, le=4096, description="rows from one scored window to the next")] = 1
    max_gap_secs: Annotated[
        float, Meta(gt=0, le=1e9, description="a longer step in time, either way, starts a new window")
    ] = 60.0
    timestamp_pointer: Annotated[str | None, Meta(description="JSON pointer of a reading's time")] = None
    series_pointer: Annotated[
        str | None, Meta(description="JSON pointer of what names the machine; null: the device id")
    ] = None
    dtype: Annotated[Literal["float64", "float32"], Meta(description="of the model's input tensor")] = "float32"
    input: Annotated[str, Meta(description="name of the model's input")] = "window"
    score: Annotated[str, Meta(description="name of the output with one score a window")] = "score"
    contributions: Annotated[
        str | None, Meta(description="name of the output with one share a feature; null: none")
    ] = None

    def manifest(self, onnx: bytes) -> Manifest:
        return Manifest(
            name=self.name,
            version=self.version,
            created="1970-01-01T00:00:00Z",
            features=self.features,
            max_gap_secs=self.max_gap_secs,
            window=Window(self.window_length, self.window_stride),
            model=ModelFile("model.onnx", self.dtype, self.input, self.score, self.contributions),
            threshold=Threshold(self.threshold, "given in the twin"),
            training=Training(0, 0, "unknown"),
            files={"model.onnx": sha256_digest(onnx)},
            timestamp_pointer=self.timestamp_pointer,
            series_pointer=self.series_pointer,
        )


class Settings(msgspec.Struct, frozen=True):
    bundle: Annotated[
        str, Meta(min_length=1, max_length=512, description="bundle: folder, .zip or .onnx under the config folder")
    ] = "models/current"
    bundle_digest: Annotated[
        Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")] | None,
        Meta(description="the only bundle to take; null: any"),
    ] = None
    when_no_model: Annotated[
        Literal["hold", "pass"],
        Meta(description="hold: acknowledge nothing until there is a model; pass: send rows on unscored"),
    ] = "hold"
    allow_bare_model: Annotated[bool, Meta(description="take a .onnx file without manifest or parity rows")] = False
    bare_model: Annotated[BareModel | None, Meta(description="feature map of a bare model")] = None
    bundle_retry_secs: Annotated[
        float, Meta(ge=0.1, le=3600, description="pause between looks for a bundle while there is no model")
    ] = 5.0
    max_series: Annotated[
        int, Meta(ge=1, le=1_000_000, description="series with a window on disk; the longest unseen is forgotten")
    ] = 10_000
    series_in_memory: Annotated[int, Meta(ge=1, le=1_000_000, description="series whose window is kept in memory")] = (
        1_000
    )
