"""What the control plane counts and measures, for Prometheus.

No label ever holds a name of a job, a user or a file: only methods, codes, states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class HistogramReading:
    """A distribution as somebody else keeps it: counts per upper bound in seconds, not cumulated."""

    counts: Mapping[float, int]
    total: float
    """Sum of all values, seconds."""


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
            buckets=_LATENCY,
            registry=self._registry,
        )
        self._readings = _Readings()
        self._registry.register(self._readings)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Adds a value that is read when somebody asks for the metrics."""
        self._readings.gauges.append((name, text, read))

    def histogram(self, name: str, text: str, read: Callable[[], HistogramReading]) -> None:
        """Adds a distribution that is read when somebody asks for the metrics."""
        self._readings.histograms.append((name, text, read))

    def text(self) -> bytes:
        """All metrics in the text form."""
        return generate_latest(self._registry)


class _Readings(Collector):
    def __init__(self) -> None:
        self.gauges: list[tuple[str, str, Callable[[], float]]] = []
        self.histograms: list[tuple[str, str, Callable[[], HistogramReading]]] = []

    def collect(self) -> Iterator[Metric]:
        for name, text, read in self.gauges:
            yield GaugeMetricFamily(name, text, value=read())
        for name, text, read_histogram in self.histograms:
            reading = read_histogram()
            buckets, count = [], 0
            for bound, number in sorted(reading.counts.items()):
                count += number
                buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(count)))
            if not buckets or buckets[-1][0] != "+Inf":
                buckets.append(("+Inf", float(count)))
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=reading.total)
