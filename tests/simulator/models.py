"""A small model in a bundle, made by hand: its score is the spread (largest minus smallest) of the window's values.

When it says why, a feature's contribution is its own spread.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from contract.bundle import (
    PARITY_FILE,
    Bundle,
    Feature,
    Manifest,
    ModelFile,
    ParityRow,
    Threshold,
    Training,
    Window,
    encode_manifest,
    encode_parity,
    sha256_digest,
)


def spread_graph(features: int, *, says_why: bool = False) -> bytes:
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], np.array([1, 2]))
    nodes = [
        helper.make_node("ReduceMax", ["window", "axes"], ["high"], keepdims=0),
        helper.make_node("ReduceMin", ["window", "axes"], ["low"], keepdims=0),
        helper.make_node("Sub", ["high", "low"], ["score"]),
    ]
    initializers, outputs = [axes], [helper.make_tensor_value_info("score", TensorProto.DOUBLE, ["batch"])]
    if says_why:
        initializers.append(helper.make_tensor("rows", TensorProto.INT64, [1], np.array([1])))
        nodes += [
            helper.make_node("ReduceMax", ["window", "rows"], ["highs"], keepdims=0),
            helper.make_node("ReduceMin", ["window", "rows"], ["lows"], keepdims=0),
            helper.make_node("Sub", ["highs", "lows"], ["contributions"]),
        ]
        outputs.append(helper.make_tensor_value_info("contributions", TensorProto.DOUBLE, ["batch", features]))
    graph = helper.make_graph(
        nodes,
        "spread",
        [helper.make_tensor_value_info("window", TensorProto.DOUBLE, ["batch", "length", features])],
        outputs,
        initializer=initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def spread_bundle(
    *,
    features: tuple[Feature, ...] = (Feature("value", "/value"),),
    length: int = 3,
    stride: int = 1,
    threshold: float = 5.0,
    series_pointer: str | None = "/machine",
    says_why: bool = False,
) -> Bundle:
    model = spread_graph(len(features), says_why=says_why)
    window = tuple(tuple(float(row) for _ in features) for row in range(length))
    parity = encode_parity((ParityRow(window=window, score=float(length - 1), tolerance=1e-9),))
    manifest = Manifest(
        name="spread",
        version="1",
        created="2026-11-23T18:00:00Z",
        features=features,
        max_gap_secs=10.0,
        window=Window(length, stride),
        model=ModelFile(contributions="contributions" if says_why else None),
        threshold=Threshold(threshold, "by hand"),
        training=Training(rows=0, series=0, sha256="sha256:" + "0" * 64),
        files={"model.onnx": sha256_digest(model), PARITY_FILE: sha256_digest(parity)},
        timestamp_pointer="/ts",
        series_pointer=series_pointer,
    )
    return Bundle.from_files({"manifest.json": encode_manifest(manifest), "model.onnx": model, PARITY_FILE: parity})


def write_spread_bundle(folder: Path, **arguments: Any) -> Path:
    bundle = spread_bundle(**arguments)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(encode_manifest(bundle.manifest))
    for name, content in bundle.files.items():
        (folder / name).write_bytes(content)
    return folder
