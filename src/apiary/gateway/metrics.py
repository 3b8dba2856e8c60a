"""Metrics for Prometheus. Calls are counted in plain dictionaries, and turned into metrics when somebody looks."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from apiary.events import Activated, CallEnded, CallRefused, Event, HostDied, RecordsDropped, WorkflowsDropped
from apiary.platform.memory import resident_bytes
from apiary.platform.platform import Platform

BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_CODES = 100
OTHER = "other"


class Metrics(Collector):
    """Counts events, and shows them with the state of the platform. `queues`: those of apps, as they are now."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.queues: dict[str, list[dict[str, Any]]] = {}
        self._calls: dict[tuple[str, str], dict[str, int]] = {}
        self._durations: dict[tuple[str, str], list[int]] = {}
        self._seconds: dict[tuple[str, str], float] = {}
        self._deaths: dict[str, int] = {}
        self._activations: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}
        self._dropped: dict[tuple[str, str], int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        platform.watch(self._count)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _count(self, event: Event) -> None:
        if isinstance(event, CallRefused):
            self._count_call(self._known(event.app, event.function), event.code)
        elif isinstance(event, CallEnded):
            function = self._known(event.app, event.function)
            self._count_call(function, "ok" if event.problem is None else str(event.problem.get("code")))
            seconds = event.duration / 1e6
            buckets = self._durations.get(function)
            if buckets is None:
                buckets = self._durations[function] = [0] * (len(BUCKETS_SECONDS) + 1)
            buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
            self._seconds[function] = self._seconds.get(function, 0.0) + seconds
        elif isinstance(event, HostDied):
            self._deaths[event.app] = self._deaths.get(event.app, 0) + 1
        elif isinstance(event, WorkflowsDropped):
            self._forgotten[event.app] = self._forgotten.get(event.app, 0) + event.workflows
        elif isinstance(event, RecordsDropped):
            for what, count in (("record", event.records), ("effects", event.effects)):
                self._dropped[event.app, what] = self._dropped.get((event.app, what), 0) + count
        elif isinstance(event, Activated):
            self._activations[event.app] = self._activations.get(event.app, 0) + 1

    def _count_call(self, function: tuple[str, str], code: str) -> None:
        """Count a call. Codes can be the app's own, of any number: the first of a function are told apart."""
        codes = self._calls.setdefault(function, {})
        if code not in codes and len(codes) >= MAX_CODES:
            code = OTHER
        codes[code] = codes.get(code, 0) + 1

    def _known(self, app: str, function: str) -> tuple[str, str]:
        """The names as labels: empty where there is no such app or function, as they are a client's text then."""
        if (app, function) in self._durations:
            return app, function
        hosts = self._platform.apps.get(app)
        if hosts is None:
            return "", ""
        return (app, function) if function in hosts.manifest.get("functions", ()) else (app, "")

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus-client's `Collector`."""
        calls = CounterMetricFamily("apiary_calls", "Calls by outcome.", labels=["app", "function", "code"])
        for function, codes in self._calls.items():
            for code, count in codes.items():
                calls.add_metric([*function, code], count)
        yield calls
        durations = HistogramMetricFamily(
            "apiary_call_duration_seconds", "Time in the function.", labels=["app", "function"]
        )
        for function, counts in self._durations.items():
            total, buckets = 0, []
            for bound, count in zip([*map(str, BUCKETS_SECONDS), "+Inf"], counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            durations.add_metric(list(function), buckets, self._seconds[function])
        yield durations
        dropped = CounterMetricFamily(
            "apiary_log_dropped", "What the log lacks of queries, because it could not keep up.", labels=["app", "what"]
        )
        for (app, what), count in self._dropped.items():
            dropped.add_metric([app, what], count)
        yield dropped
        deaths = CounterMetricFamily("apiary_host_deaths", "Hosts that ended unasked.", labels=["app"])
        activations = CounterMetricFamily("apiary_activations", "Versions that began to serve.", labels=["app"])
        forgotten = CounterMetricFamily(
            "apiary_workflows_dropped", "Ended workflows whose steps are not kept any more.", labels=["app"]
        )
        in_flight = GaugeMetricFamily("apiary_calls_in_flight", "Calls without an answer yet.", labels=["app"])
        memory = GaugeMetricFamily("apiary_host_resident_bytes", "Memory of a host.", labels=["app", "version", "pid"])
        lag = GaugeMetricFamily("apiary_log_lag_seconds", "How long effects of calls wait.", labels=["app"])
        for app, hosts in self._platform.apps.items():
            lag.add_metric([app], self._platform.expander.lag(app))
            deaths.add_metric([app], self._deaths.get(app, 0))
            activations.add_metric([app], self._activations.get(app, 0))
            forgotten.add_metric([app], self._forgotten.get(app, 0))
            running = [host for host in (hosts.active, *hosts.draining) if host is not None]
            in_flight.add_metric([app], hosts.waiting + sum(len(host.in_flight) for host in running))
            for host in running:
                memory.add_metric([app, host.version, str(host.pid)], resident_bytes(host.pid))
        yield from (deaths, activations, forgotten, in_flight, memory, lag)
        yield from self._of_queues()

    def _of_queues(self) -> Iterator[Metric]:
        calls = GaugeMetricFamily("apiary_queue_calls", "Calls in a queue.", labels=["app", "queue", "state"])
        oldest = GaugeMetricFamily(
            "apiary_queue_oldest_seconds", "Since when the first call is due that waits.", labels=["app", "queue"]
        )
        paused = GaugeMetricFamily("apiary_queue_paused", "Whether a queue is paused.", labels=["app", "queue"])
        for app, queues in self.queues.items():
            for queue in queues:
                name = queue["queue"]
                for state in ("waiting", "later", "running"):
                    calls.add_metric([app, name, state], queue[state])
                age = 0.0 if queue["oldest"] is None else max(0.0, time.time() - queue["oldest"] / 1e6)
                oldest.add_metric([app, name], age)
                paused.add_metric([app, name], float(queue["paused"]))
        yield from (calls, oldest, paused)
