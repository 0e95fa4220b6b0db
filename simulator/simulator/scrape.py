"""Reading the modules' Prometheus metrics, over their restarts: a counter that begins anew goes on where it was."""

import re
from collections.abc import Mapping

import aiohttp

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_CALL_SECS = 2.0

Samples = Mapping[str, float]


def parse_samples(text: str) -> dict[str, float]:
    """`name` or `name{labels}` as written, to its value."""
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#") and (match := _SAMPLE.fullmatch(line.strip())):
            key = match["name"] if match["labels"] is None else f"{match['name']}{{{match['labels']}}}"
            samples[key] = float(match["value"])
    return samples


class Meter:
    """The metrics of one module at one address."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: dict[str, float] = {}
        self._last: dict[str, float] = {}

    async def read(self) -> bool:
        """Take the present values; False while the module does not answer."""
        timeout = aiohttp.ClientTimeout(total=_CALL_SECS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._url) as response:
                self.take(parse_samples(await response.text()))
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False
        return True

    def take(self, samples: Samples) -> None:
        for key, last in self._last.items():
            if key.split("{")[0].endswith("_total") and samples.get(key, 0.0) < last:
                self._before[key] = self._before.get(key, 0.0) + last
        self._last = dict(samples)

    def total(self, name: str) -> float:
        """A counter over all its labels and all lives of the module."""
        return sum(
            values.get(key, 0.0) for values in (self._before, self._last) for key in values if key.split("{")[0] == name
        )

    def gauge(self, name: str) -> float:
        return self._last.get(name, 0.0)
