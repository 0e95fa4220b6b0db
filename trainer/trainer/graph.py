"""The detector of `trainer.detector` as an ONNX graph in float64: `window` in, `score` and `contributions` out.

All of the arithmetic is in the model file, so whatever runs ONNX scores as the trainer did. Standardised values are
clipped, so every finite window has a finite score.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trainer.detector import CLIP, FLAT, TINY, Detector

# The oldest that has every operator used here; onnxruntime reads it for years to come.
OPSET = 18
IR_VERSION = 8


def to_onnx(detector: Detector) -> bytes:
    """Equal bytes for equal detectors."""
    length, features = detector.length, detector.features
    values = length * features
    constants: dict[str, NDArray[Any] | np.float64] = {
        "median": detector.median,
        "inverse_scale": detector.inverse_scale,
        "inverse_step": detector.inverse_step,
        "mean": detector.mean,
        "inverse_spread": detector.inverse_spread,
        "directions": detector.directions,
        "directions_t": np.ascontiguousarray(detector.directions.T),
        "inverse_root_variance": detector.inverse_root_variance,
        "t2_limit": np.float64(detector.t2_limit),
        "spe_limit": np.float64(detector.spe_limit),
        "t2_root": np.float64(detector.t2_limit**-0.5),
        "spe_root": np.float64(detector.spe_limit**-0.5),
        "flat": np.float64(FLAT),
        "low": np.float64(-CLIP),
        "high": np.float64(CLIP),
        "tiny": np.float64(TINY),
        "tiny_sum": np.float64(TINY * features),
        "zero": np.array([0], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "last": np.array([length - 1], dtype=np.int64),
        "end": np.array([length], dtype=np.int64),
        "values": np.array([values], dtype=np.int64),
        "elements": np.array([values + features], dtype=np.int64),
        "flat_shape": np.array([0, values], dtype=np.int64),
        "window_shape": np.array([0, length, features], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        # Elements: standardised values, then each feature's roughness.
        node("Sub", ["window", "median"], ["above"]),
        node("Mul", ["above", "inverse_scale"], ["unclipped"]),
        node("Clip", ["unclipped", "low", "high"], ["standardised"]),
        node("Reshape", ["standardised", "flat_shape"], ["levels"]),
        node("Slice", ["standardised", "one", "end", "one"], ["later"]),
        node("Slice", ["standardised", "zero", "last", "one"], ["earlier"]),
        node("Sub", ["later", "earlier"], ["step"]),
        node("Abs", ["step"], ["step_size"]),
        node("ReduceMean", ["step_size", "one"], ["step_mean"], keepdims=0),
        node("Mul", ["step_mean", "inverse_step"], ["step_ratio"]),
        node("Add", ["step_ratio", "flat"], ["step_floored"]),
        node("Log", ["step_floored"], ["roughness"]),
        node("Concat", ["levels", "roughness"], ["v"], axis=1),
        node("Sub", ["v", "mean"], ["v_centred"]),
        node("Mul", ["v_centred", "inverse_spread"], ["y"]),
        # T² and SPE.
        node("MatMul", ["y", "directions"], ["t"]),
        node("Mul", ["t", "inverse_root_variance"], ["whitened"]),
        node("MatMul", ["t", "directions_t"], ["explained"]),
        node("Sub", ["y", "explained"], ["residual"]),
        node("ReduceSumSquare", ["whitened", "one"], ["t2"], keepdims=0),
        node("ReduceSumSquare", ["residual", "one"], ["spe"], keepdims=0),
        node("Div", ["t2", "t2_limit"], ["t2_ratio"]),
        node("Div", ["spe", "spe_limit"], ["spe_ratio"]),
        node("Max", ["t2_ratio", "spe_ratio"], ["score"]),
        # Contributions to the combined index.
        node("MatMul", ["whitened", "directions_t"], ["along"]),
        node("Mul", ["residual", "spe_root"], ["residual_part"]),
        node("Mul", ["along", "t2_root"], ["along_part"]),
        node("Add", ["residual_part", "along_part"], ["part_root"]),
        node("Mul", ["part_root", "part_root"], ["part"]),
        node("Slice", ["part", "zero", "values", "one"], ["level_part"]),
        node("Slice", ["part", "values", "elements", "one"], ["roughness_part"]),
        node("Reshape", ["level_part", "window_shape"], ["level_window"]),
        node("ReduceSum", ["level_window", "one"], ["level_sum"], keepdims=0),
        node("Add", ["level_sum", "roughness_part"], ["feature_part"]),
        node("ReduceSum", ["feature_part", "one"], ["whole"], keepdims=1),
        node("Add", ["feature_part", "tiny"], ["feature_floored"]),
        node("Add", ["whole", "tiny_sum"], ["whole_floored"]),
        node("Div", ["feature_floored", "whole_floored"], ["contributions"]),
    ]
    graph = helper.make_graph(
        nodes,
        "windowed_pca",
        [helper.make_tensor_value_info("window", TensorProto.DOUBLE, ["batch", length, features])],
        [
            helper.make_tensor_value_info("score", TensorProto.DOUBLE, ["batch"]),
            helper.make_tensor_value_info("contributions", TensorProto.DOUBLE, ["batch", features]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edgeweir-trainer")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
