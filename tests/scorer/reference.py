"""The scorer's rules once more, a row at a time and with plain lists: what the module must be equal to."""

import numpy as np

from contract.bundle import Manifest
from tests.scorer.models import weights_of


class Reference:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.window: dict[tuple[str, str], list[list[float]]] = {}
        self.count: dict[tuple[str, str], int] = {}
        self.last: dict[tuple[str, str], float] = {}

    def row(self, device: str, reading: dict[str, object]) -> tuple[float | None, str | None]:
        """The row's score (9 significant digits) or why it has none."""
        key = (device, str(reading.get("machine", device)))
        length, stride = self.manifest.window.length, self.manifest.window.stride
        t = reading.get("t")
        before = self.last.get(key)
        gap = (
            length > 1
            and isinstance(t, int | float)
            and before is not None
            and abs(t - before) > self.manifest.max_gap_secs
        )
        window = [] if gap else self.window.get(key, [])
        values = []
        for index, feature in enumerate(self.manifest.features):
            value = reading.get(feature.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.append(float(value))
            elif feature.missing == "constant" and feature.fill is not None:
                values.append(feature.fill)
            elif feature.missing == "hold_last" and window:
                values.append(window[-1][index])
            else:
                return None, "missing_feature"
        if isinstance(t, int | float):
            self.last[key] = t
        count = 1 if gap else self.count.get(key, 0) + 1
        window = [*window, values][-length:]
        self.window[key], self.count[key] = window, count
        if count < length:
            return None, "gap" if gap else "warm_up"
        if (count - length) % stride:
            return None, "stride"
        score = float((np.array(window) * weights_of(length, len(values))).sum())
        return float(f"{score:.9g}"), None
