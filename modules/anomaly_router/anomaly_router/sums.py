"""Exact sums of floats that can be added to for hours and kept on disk in between.

The state is a list of non-overlapping partial sums whose exact total is the exact sum of everything added (Shewchuk,
"Adaptive Precision Floating-Point Arithmetic", 1997, as in Python's math.fsum). So a mean is correctly rounded and does
not depend on the order of rows or on how they were cut into messages. Sums of finite values up to 1e300 do not overflow
here: `policy.lane` lets nothing larger through.
"""

from fractions import Fraction

import msgspec


def add_exactly(partials: list[float], value: float) -> None:
    kept = 0
    for partial in partials:
        if abs(value) < abs(partial):
            value, partial = partial, value
        total = value + partial
        error = partial - (total - value)
        if error:
            partials[kept] = error
            kept += 1
        value = total
    partials[kept:] = [value]


class Aggregate(msgspec.Struct):
    """Count, extremes and exact sum of what was added. `treatment` is the policy transform the values went through."""

    treatment: str
    count: int = 0
    min: float = 0.0
    max: float = 0.0
    partials: list[float] = []

    def add(self, value: float) -> None:
        if self.count == 0:
            self.min = self.max = value
        elif value < self.min:
            self.min = value
        elif value > self.max:
            self.max = value
        self.count += 1
        add_exactly(self.partials, value)

    @property
    def mean(self) -> float:
        """The exact mean, rounded once; so it never lies outside the extremes."""
        return float(sum(map(Fraction, self.partials), Fraction()) / self.count)
