"""The threshold, from scores of clean data that the model was not fitted to."""

import math

import numpy as np

from trainer.detector import Floats

TAIL_SHARE = 0.02


def threshold(scores: Floats, false_alarm_rate: float) -> float:
    """The score that clean windows exceed at about the given rate, to six significant digits.

    Clean data never holds enough windows to see one in a million, so the tail is extrapolated: excesses over the 98 %
    point are taken as exponential (peaks over threshold; Pickands 1975, with shape 0), their scale from the median
    excess. The median, and not the mean or the maximum, keeps a few unlabelled faults in the data from lifting the
    threshold over all faults to come.
    """
    start = float(np.quantile(scores, 1 - TAIL_SHARE))
    excesses = scores[scores > start] - start
    scale = float(np.median(excesses)) / math.log(2) if len(excesses) else 0.0
    # Scores that hardly vary (a constant machine) say nothing of a tail: half as much again is the margin.
    value = max(start + scale * math.log(TAIL_SHARE / false_alarm_rate), start * 1.5)
    return float(f"{max(value, 1.0):.6g}")


def rule(scores: Floats, false_alarm_rate: float) -> str:
    return (
        f"exponential tail over the {1 - TAIL_SHARE:.0%} point of {len(scores)} held-out windows, extrapolated to "
        f"{false_alarm_rate:g} false alarms a window"
    )
