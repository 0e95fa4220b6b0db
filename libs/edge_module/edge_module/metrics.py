"""Prometheus metrics in a registry of the module's own: `edgeweir_<module>_<noun>_<unit>_total`, few labels.

No histograms: the runtime's metrics collector skips `+Inf` buckets.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """Counters and gauges made at first use; a name always carries the same label names. Thread-safe."""

    def __init__(self, module: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"edgeweir_{module}_"
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._children: dict[tuple[str, tuple[tuple[str, str], ...]], Counter] = {}

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to `edgeweir_<module>_<name>_total`."""
        key = (name, tuple(labels.items()))
        child = self._children.get(key)
        if child is None:
            counter = self._counters.get(name)
            if counter is None:
                counter = Counter(self._prefix + name, name.replace("_", " "), list(labels), registry=self.registry)
                self._counters[name] = counter
            child = self._children[key] = counter.labels(**labels) if labels else counter
        child.inc(value)

    def gauge(self, name: str, value: float) -> None:
        """Set `edgeweir_<module>_<name>`."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(self._prefix + name, name.replace("_", " "), registry=self.registry)
        gauge.set(value)

    def value(self, name: str, **labels: str) -> float:
        """A counter's value, 0 when it was never counted."""
        return self.registry.get_sample_value(f"{self._prefix}{name}_total", labels) or 0.0

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
