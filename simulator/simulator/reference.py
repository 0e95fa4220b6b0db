"""What an undisturbed run would store: the same rows through a small computation of its own.

Independent of the modules on purpose: it shares with them only the bundle's and the messages' definitions, so that a
misreading in the scorer or the policy engine shows as a difference. Messages are taken in the order in which they
arrived. It knows the transforms keep, drop and round, and whole paths; a policy with more is refused.
"""

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, cast

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from contract.bundle import Bundle, Feature, feature_number
from contract.lanes import Lane
from contract.pointer import MISSING, parse_pointer, resolve
from contract.timestamps import format_timestamp, parse_timestamp
from simulator.delivery import Message
from simulator.errors import UserError
from simulator.oracle import Expected, ExpectedRow, RowId
from simulator.quiet_onnx import onnxruntime
from simulator.stored import Number, loads

SCORE_DIGITS = 9
WHY_FEATURES = 3
Shares = tuple[tuple[str, float], ...]
# Leaves unless the policy says otherwise.
_VERDICT = frozenset(("score", "threshold", "anomaly", "no_score", "why"))


@dataclass
class _Series:
    """The state of one series: its window, newest row last."""

    window: deque[tuple[float, ...]]
    last_micros: int | None = None
    since_scored: int | None = None  # None: no window has been scored since it filled
    rows: int = 0


@dataclass
class _Row:
    identity: RowId
    series: str
    index: int
    reading: dict[str, Any]
    t: str | None
    no_score: str | None = None
    window: tuple[tuple[float, ...], ...] | None = None


class Scoring:
    """Windows and scores, series by series."""

    def __init__(self, bundle: Bundle) -> None:
        self._manifest = bundle.manifest
        self._series: dict[tuple[str, str], _Series] = {}  # by device and series
        self._timestamp = parse_pointer(self._manifest.timestamp_pointer) if self._manifest.timestamp_pointer else None
        self._features = [(feature, parse_pointer(feature.pointer)) for feature in self._manifest.features]
        pointer = self._manifest.series_pointer
        self._series_tokens = parse_pointer(pointer) if pointer else None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            bundle.model_bytes, sess_options=options, providers=["CPUExecutionProvider"]
        )

    def place(self, identity: RowId, reading: dict[str, Any]) -> _Row:
        """Take one row into its series' window."""
        name = self._series_name(identity.device, reading)
        state = self._series.setdefault((identity.device, name), _Series(deque(maxlen=self._manifest.window.length)))
        micros = self._micros(reading)
        row = _Row(identity, name, state.rows, reading, None if micros is None else format_timestamp(micros))
        state.rows += 1
        gap = self._is_gap(state, micros)
        values = self._values(state, reading, gap)
        if values is None:
            row.no_score = "missing_feature"
            return row
        if gap:
            state.window.clear()
            state.since_scored = None
        if micros is not None:
            state.last_micros = micros
        state.window.append(values)
        row.no_score = self._why_not(state, gap)
        if row.no_score is None:
            row.window = tuple(state.window)
        return row

    def scores(self, rows: Sequence[_Row]) -> list[tuple[float | None, Shares]]:
        """Per row its score, None without a window, and its largest shares; one batch per series of a message."""
        results: dict[int, tuple[float | None, Shares]] = {}
        for series in dict.fromkeys(row.series for row in rows):
            chosen = [(place, row.window) for place, row in enumerate(rows) if row.series == series and row.window]
            if chosen:
                scored = self._run(np.array([window for _, window in chosen]))
                results.update(zip((place for place, _ in chosen), scored, strict=True))
        return [results.get(place, (None, ())) for place in range(len(rows))]

    def _run(self, windows: NDArray[np.float64]) -> list[tuple[float | None, Shares]]:
        model = self._manifest.model
        outputs = [model.score] if model.contributions is None else [model.score, model.contributions]
        found = self._session.run(outputs, {model.input: windows.astype(np.dtype(model.dtype))})
        scores = [_nine_digits(score) for score in np.ravel(found[0])]
        if model.contributions is None:
            return [(score, ()) for score in scores]
        return [(score, self._largest(shares)) for score, shares in zip(scores, found[1], strict=True)]

    def _largest(self, shares: Sequence[float]) -> Shares:
        """The largest first, of equal ones the manifest's order; none that is zero."""
        named = [
            (feature.name, _nine_digits(share)) for (feature, _), share in zip(self._features, shares, strict=True)
        ]
        ranked = sorted(range(len(named)), key=lambda number: -float(shares[number]))[:WHY_FEATURES]
        return tuple(named[number] for number in ranked if named[number][1])

    @property
    def threshold(self) -> float:
        return self._manifest.threshold.value

    def is_anomaly(self, score: float | None) -> bool:
        return score is not None and score > self.threshold

    def _series_name(self, device: str, reading: dict[str, Any]) -> str:
        found = resolve(reading, self._series_tokens) if self._series_tokens else MISSING
        if isinstance(found, Number):
            return str(found) if found.lstrip("-").isdigit() else device
        return found if isinstance(found, str) else device

    def _values(self, state: _Series, reading: dict[str, Any], gap: bool) -> tuple[float, ...] | None:
        """What the window gets of this row; a held value comes from the row before it in the same window."""
        before = state.window[-1] if state.window and not gap else None
        values = []
        for number, (feature, tokens) in enumerate(self._features):
            value = _feature_value(feature, resolve(reading, tokens))
            if value is None and feature.missing == "hold_last" and before is not None:
                value = before[number]
            values.append(value)
        return None if None in values else tuple(cast(list[float], values))

    def _micros(self, reading: dict[str, Any]) -> int | None:
        found = resolve(reading, self._timestamp) if self._timestamp else MISSING
        return parse_timestamp(float(found) if isinstance(found, Number) else found)

    def _is_gap(self, state: _Series, micros: int | None) -> bool:
        """A window of one row has nothing that could break."""
        if micros is None or state.last_micros is None or self._manifest.window.length == 1:
            return False
        return abs(micros - state.last_micros) > self._manifest.max_gap_secs * 1e6

    def _why_not(self, state: _Series, gap: bool) -> str | None:
        if gap:
            return "gap"
        if len(state.window) < self._manifest.window.length:
            return "warm_up"
        state.since_scored = self._manifest.window.stride if state.since_scored is None else state.since_scored + 1
        if state.since_scored < self._manifest.window.stride:
            return "stride"
        state.since_scored = 0
        return None


def _feature_value(feature: Feature, found: object) -> float | None:
    """None where it is missing, also when it overflows the feature's type."""
    number = feature_number(float(found) if isinstance(found, Number) else found)
    if number is None:
        number = feature.fill
    if number is None:
        return None
    with np.errstate(over="ignore"):
        value = float(np.dtype(feature.dtype).type(number))
    return value if math.isfinite(value) else None


class LanePolicy:
    """Which fields of a reading, and which parts of the envelope, a lane of rows carries, and how."""

    def __init__(self, text: str, lane: Lane) -> None:
        self._rules: list[tuple[str, str, int]] = []
        self._features: set[str] = set()
        document = yaml.safe_load(text)
        named = document.get("envelope", {})
        self.envelope = frozenset(_VERDICT - named.keys()) | {
            name for name, rule in named.items() if rule["transform"] == "keep" and lane in rule.get("lanes", ())
        }
        for rule in document.get("fields", ()):
            if lane not in rule.get("lanes", ()) or rule["transform"] == "drop":
                continue
            tokens = parse_pointer(rule["path"])
            if rule["transform"] not in ("keep", "round") or len(tokens) != 1 or "*" in rule["path"]:
                raise UserError(f"the reference knows no rule like {rule['path']} {rule['transform']}")
            self._rules.append((tokens[0], rule["transform"], int(rule.get("decimals", 0))))
            self._features.add(rule.get("feature", tokens[0]))

    def apply(self, reading: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, transform, decimals in self._rules:
            if name not in reading:
                continue
            if transform == "keep":
                result[name] = reading[name]
            elif isinstance(reading[name], Number):
                result[name] = rounded(reading[name], decimals)
        return result

    def why(self, shares: Shares) -> Shares:
        """Features whose field stays on the site are one share, `other`."""
        if "why" not in self.envelope:
            return ()
        shown = tuple(share for share in shares if share[0] in self._features)
        hidden = [share for name, share in shares if name not in self._features]
        return (*shown, ("other", sum(hidden))) if hidden else shown


def rounded(number: Number, decimals: int) -> Number:
    """Half to even on the digits as written, with exactly that many decimals and no negative zero."""
    value = Decimal(number).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
    return Number(f"{abs(value) if value == 0 else value:f}")


class Reference:
    """Feed it each device's messages in order; `expected` is what storage must hold in the end."""

    def __init__(self, bundle: Bundle, policy_text: str) -> None:
        self._scoring = Scoring(bundle)
        self._readings, self._events = LanePolicy(policy_text, "readings"), LanePolicy(policy_text, "anomalies")
        self._seen: set[tuple[str, str, bytes]] = set()
        self.expected = Expected(
            envelope=self._readings.envelope, event_envelope=self._events.envelope, model=bundle.digest
        )

    def take(self, device: str, message: Message) -> None:
        """A message that was taken before changes nothing."""
        key = (device, message.message_id, message.body)
        if key in self._seen:
            return
        self._seen.add(key)
        elements = _elements(message.body)
        if elements is None:
            self._reject(RowId(device, message.message_id, None), message.body)
            return
        rows = []
        for i, element in enumerate(elements):
            identity = RowId(device, message.message_id, i)
            reading = loads(element)
            if isinstance(reading, dict):
                rows.append(self._scoring.place(identity, reading))
            else:
                self._reject(identity, element)
        for row, (score, shares) in zip(rows, self._scoring.scores(rows), strict=True):
            if score is not None and not math.isfinite(score):
                row.no_score, score = "not_finite", None
            anomaly = self._scoring.is_anomaly(score)
            self.expected.rows[row.identity] = ExpectedRow(
                series=row.series,
                index=row.index,
                reading=self._readings.apply(row.reading),
                score=score,
                no_score=row.no_score,
                anomaly=anomaly,
                t=row.t,
                threshold=None if score is None else self._scoring.threshold,
                why=self._readings.why(shares) if anomaly else (),
                event_reading=self._events.apply(row.reading),
                event_why=self._events.why(shares) if anomaly else (),
            )

    def _reject(self, identity: RowId, text: bytes) -> None:
        self.expected.rejected[identity] = text
        self.expected.reasons[identity] = rejection_reason(text)


def rejection_reason(text: bytes) -> str:
    """Of a text that is no reading and no array of them."""
    try:
        json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not_json"
    return "not_a_reading"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _elements(body: bytes) -> list[bytes] | None:
    """The readings' own texts; None when the whole body is to be rejected."""
    try:
        root = msgspec.json.decode(body)
        if isinstance(root, dict):
            return [body]
        if isinstance(root, list):
            return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return None


def _nine_digits(score: float) -> float:
    number = float(score)
    return float(f"{number:.{SCORE_DIGITS}g}") if math.isfinite(number) else number
