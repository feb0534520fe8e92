"""Counts and durations of requests for Prometheus, by method, route template and status class."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram's buckets, in seconds."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_LABELS = ("method", "route", "status")


class RequestMetrics(Collector):
    """Register it with a ``CollectorRegistry``.

    Plain numbers that only the event loop touches, made into samples when somebody asks: prometheus_client's own
    counters take a lock for each of a dozen numbers, on every request. Labels are bounded: routes by their templates,
    methods by METHODS and ``other``, statuses by their class.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], tuple[list[int], list[float]]] = {}

    def add(self, method: str, route: str, status: int, duration: float) -> None:
        """Count one request that took ``duration`` seconds."""
        key = (method if method in METHODS else "other", route, status // 100)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = ([0] * (len(BOUNDS) + 1), [0.0])
        buckets, total = series
        buckets[bisect_left(BOUNDS, duration)] += 1
        total[0] += duration

    def collect(self) -> Iterator[Metric]:
        """The samples; called by the registry when ``/metrics`` is read."""
        requests = CounterMetricFamily("orgstead_http_requests", "Requests answered.", labels=_LABELS)
        durations = HistogramMetricFamily(
            "orgstead_http_request_duration_seconds", "Time from a request's headers to its answer.", labels=_LABELS
        )
        for (method, route, status), (buckets, total) in list(self._series.items()):
            labels = (method, route, f"{status}xx")
            count = 0
            cumulated: list[tuple[str, float]] = []
            for bound, number in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
                count += number
                cumulated.append((bound, count))
            requests.add_metric(labels, count)
            durations.add_metric(labels, cumulated, sum_value=total[0])
        yield requests
        yield durations
