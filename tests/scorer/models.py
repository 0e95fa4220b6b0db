"""Small ONNX models, and bundles of them, for tests that need to know every number."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from contract.bundle import (
    MANIFEST_FILE,
    PARITY_FILE,
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

TYPES = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT}


def weighted_sum_onnx(weights: np.ndarray[Any, Any], dtype: str = "float64") -> bytes:
    """score = sum over the window of value * weight; contributions = each feature's part of it."""
    length, features = weights.shape
    numpy_type = np.float64 if dtype == "float64" else np.float32
    nodes = [
        helper.make_node("Mul", ["window", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "rows"], ["contributions"], keepdims=0),
        helper.make_node("ReduceSum", ["contributions", "rows"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "weighted_sum",
        [helper.make_tensor_value_info("window", TYPES[dtype], ["batch", length, features])],
        [
            helper.make_tensor_value_info("score", TYPES[dtype], ["batch"]),
            helper.make_tensor_value_info("contributions", TYPES[dtype], ["batch", features]),
        ],
        [
            numpy_helper.from_array(weights.astype(numpy_type), "weights"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "rows"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return bytes(model.SerializeToString(deterministic=True))


def weights_of(length: int, features: int) -> np.ndarray[Any, Any]:
    """Different for every place, so that a window in another order has another score."""
    return np.arange(1, length * features + 1, dtype=np.float64).reshape(length, features) ** 1.5


def bundle_files(
    *,
    length: int = 3,
    features: tuple[Feature, ...] = (Feature("a", "/a"), Feature("b", "/b")),
    dtype: str = "float64",
    tolerance: float = 1e-9,
    parity_score: float | None = None,
    onnx: bytes | None = None,
    **changes: Any,
) -> dict[str, bytes]:
    weights = weights_of(length, len(features))
    window = tuple(tuple(1.0 + row for _ in features) for row in range(length))
    score = float((np.array(window) * weights).sum()) if parity_score is None else parity_score
    contents = {
        "model.onnx": onnx or weighted_sum_onnx(weights, dtype),
        PARITY_FILE: encode_parity((ParityRow(window=window, score=score, tolerance=tolerance),)),
    }
    fields: dict[str, Any] = {
        "name": "sum",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "features": features,
        "max_gap_secs": 10.0,
        "window": Window(length=length),
        "model": ModelFile(dtype=dtype),  # type: ignore[arg-type]  # a plain str in tests
        "threshold": Threshold(1e6, "given"),
        "training": Training(rows=0, series=0, sha256="sha256:" + "0" * 64),
        "files": {path: sha256_digest(content) for path, content in contents.items()},
        "timestamp_pointer": "/t",
        "series_pointer": "/machine",
    }
    return {MANIFEST_FILE: encode_manifest(Manifest(**(fields | changes))), **contents}


def write_folder(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
