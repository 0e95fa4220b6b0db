"""ONNX Runtime without its telemetry: since 1.32 it reports its use to its maker unless it is told not to before it is
loaded. Nothing leaves unasked, so import it from here.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
