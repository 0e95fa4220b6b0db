"""A model that runs: loaded, compared with its parity rows, warmed up.

One thread computes (the data path is one thread, and a gateway has better uses for its cores), in the manifest's input
type. What the graph answers is checked: a score that is not finite is None, never a number that compares as false.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Bundle, BundleError, Manifest
from contract.messages import Model
from scorer.quiet_onnx import onnxruntime
from scorer.readings import Fields
from scorer.series import Floats, Layout

# Windows of one call hold at most this many values (32 MB in float64); more go in several calls.
_CALL_VALUES: Final = 4_000_000
_TENSORS: Final = {"float64": "tensor(double)", "float32": "tensor(float)"}


class LoadedModel:
    """Raises BundleError (`bundle_model` or `bundle_parity`) when the model cannot be what its manifest says."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest: Manifest = bundle.manifest
        self.digest = bundle.digest
        self.identity = Model(bundle.manifest.name, bundle.manifest.version, bundle.digest)
        self.fields = Fields(bundle.manifest)
        self.layout = Layout.of(bundle.manifest)
        self.feature_names = tuple(feature.name for feature in bundle.manifest.features)
        self._dtype = np.float64 if bundle.manifest.model.dtype == "float64" else np.float32
        self._outputs = [bundle.manifest.model.score]
        if bundle.manifest.model.contributions is not None:
            self._outputs.append(bundle.manifest.model.contributions)
        self._session = _open_session(bundle.model_bytes)
        self._check_interface()
        self._check_parity(bundle)
        self._warm_up()

    def score(self, windows: Floats) -> tuple[list[float | None], Floats | None]:
        """Per window (batch, length, features) its score to 9 significant digits, and the features' shares.

        Float64 results differ in the last digits with the size of the batch; nine digits never show it.
        """
        scores, shares = self._run(windows)
        return [round_score(value) for value in scores.tolist()], shares

    def _run(self, windows: Floats) -> tuple[Floats, Floats | None]:
        calls = max(1, _CALL_VALUES // max(1, windows[:1].size))
        parts = [self._call(windows[start : start + calls]) for start in range(0, len(windows), calls)]
        scores = np.concatenate([part[0] for part in parts])
        return scores, np.concatenate([part[1] for part in parts]) if len(self._outputs) > 1 else None

    def _call(self, windows: Floats) -> Sequence[Floats]:
        with np.errstate(over="ignore"):
            tensor = np.ascontiguousarray(windows, dtype=self._dtype)
        outputs = self._session.run(self._outputs, {self.manifest.model.input: tensor})
        scores = np.asarray(outputs[0], dtype=np.float64).reshape(-1)
        if len(scores) != len(windows):
            raise BundleError("bundle_model", f"the model gave {len(scores)} scores for {len(windows)} windows")
        return [scores, *(np.asarray(output, dtype=np.float64).reshape(len(windows), -1) for output in outputs[1:])]

    def _check_interface(self) -> None:
        model, window = self.manifest.model, self.manifest.window
        inputs = {found.name: found for found in self._session.get_inputs()}
        if set(inputs) != {model.input}:
            raise BundleError(
                "bundle_model", f"the model's inputs are {sorted(inputs)}, the manifest says {model.input}"
            )
        found = inputs[model.input]
        if found.type != _TENSORS[model.dtype]:
            raise BundleError("bundle_model", f"the model's input is {found.type}, the manifest says {model.dtype}")
        wanted: tuple[int | None, ...] = (None, window.length, len(self.manifest.features))
        if len(found.shape) != 3 or any(
            isinstance(size, int) and expected is not None and size != expected
            for size, expected in zip(found.shape, wanted, strict=True)
        ):
            shape = f"[batch, {window.length}, {len(self.manifest.features)}]"
            raise BundleError("bundle_model", f"the model's input has shape {found.shape}, the manifest says {shape}")
        if isinstance(found.shape[0], int):
            raise BundleError("bundle_model", "the model takes a fixed batch; export it with a free batch size")
        outputs = {output.name for output in self._session.get_outputs()}
        for name in self._outputs:
            if name not in outputs:
                raise BundleError("bundle_model", f"the model has no output {name!r}, only {sorted(outputs)}")

    def _check_parity(self, bundle: Bundle) -> None:
        if not bundle.parity:
            return
        scores, shares = self._tried(np.array([row.window for row in bundle.parity], dtype=np.float64))
        for number, row in enumerate(bundle.parity, start=1):
            _compare(number, "score", scores[number - 1 : number], (row.score,), row.tolerance)
            if row.contributions is not None and shares is not None:
                _compare(number, "contributions", shares[number - 1], row.contributions, row.tolerance)

    def _warm_up(self) -> None:
        window = np.zeros((1, self.manifest.window.length, len(self.manifest.features)))
        _, shares = self._tried(window)
        if shares is not None and shares.shape[1] != len(self.feature_names):
            raise BundleError("bundle_model", f"{shares.shape[1]} contributions for {len(self.feature_names)} features")

    def _tried(self, windows: Floats) -> tuple[Floats, Floats | None]:
        try:
            return self._run(windows)
        except BundleError:
            raise
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise BundleError("bundle_model", f"the model does not run: {error}") from None


def round_score(value: float) -> float | None:
    """To 9 significant digits; None when it is no finite number."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _compare(number: int, what: str, found: Floats, expected: Sequence[float], tolerance: float) -> None:
    wanted: NDArray[np.float64] = np.array(expected)
    if found.shape == wanted.shape and bool(
        np.all(np.abs(found - wanted) <= tolerance * np.maximum(1, np.abs(wanted)))
    ):
        return
    detail = f"parity row {number}: {what} is {found.tolist()}, expected {list(expected)} within {tolerance:g}"
    raise BundleError("bundle_parity", detail)


def _open_session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The log goes to stdout in a form of its own; what matters comes back as an exception.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise BundleError("bundle_model", f"the model does not load: {error}") from None
