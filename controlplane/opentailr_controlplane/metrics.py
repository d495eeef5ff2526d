"""What the control plane counts and measures, for Prometheus.

No label ever holds a name of a job, a user or a file: only methods and codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_COMMIT_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)


class Metrics:
    """One registry of its own, so that several servers in one process keep apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self.calls = Counter(
            "opentailr_rpc",
            "Finished calls by method and status code.",
            ["method", "code"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "opentailr_rpc_seconds",
            "Duration of calls that give one answer.",
            ["method"],
            buckets=_CALL_SECONDS,
            registry=self._registry,
        )
        self.commits = Histogram(
            "opentailr_commit_seconds",
            "Duration of the engine's commits.",
            buckets=_COMMIT_SECONDS,
            registry=self._registry,
        )
        self._readings = _Readings()
        self._registry.register(self._readings)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Adds a value that is read when somebody asks for the metrics."""
        self._readings.add(lambda: {name: read()}, text)

    def gauges(self, prefix: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Adds a group of values; each name gets the prefix."""
        self._readings.add(lambda: {prefix + name: value for name, value in read().items()}, text)

    def text(self) -> bytes:
        """All metrics in the text form."""
        return generate_latest(self._registry)


class _Readings(Collector):
    def __init__(self) -> None:
        self._groups: list[tuple[Callable[[], Mapping[str, float]], str]] = []

    def add(self, read: Callable[[], Mapping[str, float]], text: str) -> None:
        self._groups.append((read, text))

    def collect(self) -> Iterator[Metric]:
        for read, text in self._groups:
            for name, value in read().items():
                yield GaugeMetricFamily(name, text, value=value)
