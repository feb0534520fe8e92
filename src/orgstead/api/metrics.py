"""Counts and durations of requests for Prometheus, by method, route template and status class."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orgstead.api.ended import Ended

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram's buckets, in seconds."""

_BOUNDS_MS = tuple(bound * 1000 for bound in BOUNDS)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_kind: Final = attrgetter("method", "route", "status")

_LABELS = ("method", "route", "status")


class RequestMetrics(Collector):
    """Register it with a ``CollectorRegistry``.

    Plain numbers that only the event loop touches, made into samples when somebody asks: prometheus_client's own
    counters take a lock for each of a dozen numbers, on every request. Labels are bounded: routes by their templates,
    methods by METHODS and ``other``, statuses by their class.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], tuple[list[int], list[float]]] = {}
        self.settle: Callable[[], object] = lambda: None
        """Called before the counts are read: whoever keeps ended requests back hands them to ``count``."""

    def count(self, requests: Iterable[Ended]) -> None:
        """Count requests that have ended."""
        alike: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
        for ended in requests:
            alike[_kind(ended)].append(ended.duration_ms)
        for (method, route, status), durations in alike.items():
            key = (method if method in METHODS else "other", route, status // 100)
            buckets, total = self._series.setdefault(key, ([0] * (len(BOUNDS) + 1), [0.0]))
            total[0] += sum(durations) / 1000
            durations.sort()
            before = 0
            for place, bound in enumerate(_BOUNDS_MS):
                at_most = bisect_right(durations, bound, before)
                buckets[place] += at_most - before
                before = at_most
            buckets[-1] += len(durations) - before

    def snapshot(self) -> list[Any]:
        """All counts so far, as JSON can hold them; ``include`` takes them."""
        self.settle()
        return [[*key, buckets, total[0]] for key, (buckets, total) in self._series.items()]

    def include(self, snapshot: Sequence[Any]) -> None:
        """Add the counts of another process."""
        for method, route, status, buckets, seconds in snapshot:
            own, total = self._series.setdefault((method, route, status), ([0] * (len(BOUNDS) + 1), [0.0]))
            own[:] = (mine + theirs for mine, theirs in zip(own, buckets, strict=True))
            total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        """The samples; called by the registry when ``/metrics`` is read."""
        self.settle()
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


def of_this_process() -> CollectorRegistry:
    """What Prometheus calls a process: its processor time, memory, descriptors and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def as_plain(collector: Collector) -> list[Any]:
    """A collector's families and their samples, as JSON can hold them; ``Together.add`` takes them."""
    return [
        [family.name, family.documentation, family.type, [[s.name, s.labels, s.value] for s in family.samples]]
        for family in collector.collect()
    ]


class Together(Collector):
    """The figures of several processes as one service's.

    Requests are summed up. What belongs to a process keeps its own figures, told apart by the label ``process``: a sum
    of memory or start times would mean nothing. The counts of a process that is gone stay, so that counters never fall.
    """

    def __init__(self) -> None:
        self._latest: dict[str, list[Any]] = {}
        self._gone = RequestMetrics()
        self._own: dict[str, list[Any]] = {}
        self.serving = 0
        self.restarts = 0

    def add(self, process: str, requests: list[Any], own: list[Any]) -> None:
        """Take what a process has counted by now."""
        self._latest[process] = requests
        self._own[process] = own

    def end(self, process: str) -> None:
        """The process is gone: keep what it was last known to have counted."""
        self._gone.include(self._latest.pop(process, ()))
        self._own.pop(process, None)

    def collect(self) -> Iterator[Metric]:
        """The samples; called by the registry when ``/metrics`` is read."""
        requests = RequestMetrics()
        for snapshot in (self._gone.snapshot(), *self._latest.values()):
            requests.include(snapshot)
        yield from requests.collect()
        families: dict[str, Metric] = {}
        for process, plain in self._own.items():
            for name, documentation, kind, samples in plain:
                family = families.setdefault(name, Metric(name, documentation, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "process": process}, value)
        yield from families.values()
        yield GaugeMetricFamily("orgstead_serving_processes", "Processes that serve requests.", self.serving)
        yield CounterMetricFamily(
            "orgstead_process_restarts", "Serving processes that ended and were replaced.", self.restarts
        )
