"""Metrics for Prometheus: requests, connections to the database, admission, bookings, processes.

Law: labels are names of routes, methods, statuses, SQLSTATEs, constraints and trusted issuers, all of them few; never a
tenant or a patient. With several processes (`PROMETHEUS_MULTIPROC_DIR`) each writes to files of its own, and any of
them answers for all. Knows no request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fhir_sched.db.errors import TRANSLATED
from fhir_sched.db.measured import Measured
from fhir_sched.db.replica import Replica
from fhir_sched.events.metrics import RelayMetrics
from fhir_sched.events.tally import Tally
from fhir_sched.http.admission import Gate
from fhir_sched.http.key_metrics import KeyMetrics
from fhir_sched.http.replica_metrics import ReplicaMetrics
from fhir_sched.journal import Journal
from fhir_sched.security.jwks import IssuerKeys
from fhir_sched.subscriptions.metrics import SubscriptionMetrics
from fhir_sched.subscriptions.tally import Heard

MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_OUTCOMES: Final = {201: "booked", 409: "conflict"}

Observe = Callable[[float], None]
Count = Callable[[], None]


class Metrics:
    """The metrics of one process; `observe` is told of each answer, `exposition` gives all in Prometheus' text form."""

    def __init__(
        self,
        gate: Gate,
        measured: Callable[[], Measured],
        dropped: Callable[[], int],
        keys: Mapping[str, IssuerKeys],
        tallies: tuple[Tally, Heard],
        journal: Journal | None,
        replica: Replica | None = None,
    ) -> None:
        self._journal = journal
        self._gate, self._measured, self._dropped = gate, measured, dropped
        self._known: dict[tuple[str, str, int], tuple[Count, Observe, Count | None]] = {}
        self._last: dict[str, float] = {}
        self._directory = os.environ.get(MULTIPROCESS_DIR)
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fhir_sched_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"fhir_sched_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        self._requests = counter("requests", "Requests answered", "route", "method", "status")
        self._errors = counter("errors", "Requests answered with a status of 400 or more", "route", "method", "status")
        self._seconds = Histogram(
            "fhir_sched_request_seconds",
            "From the request's head to the answer's last byte",
            ("route", "method"),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._bookings = counter(
            "bookings", "Creates of one Appointment, by outcome; not those within a Bundle", "outcome"
        )
        for outcome in _OUTCOMES.values():
            self._bookings.labels(outcome)
        self._running = gauge("requests_running", "Requests in progress")
        self._waiting = gauge("requests_waiting", "Requests that wait to be begun")
        self._refused = counter("requests_shed", "Requests refused because too many were in progress")
        self._lanes = gauge("lanes_connected", "Connections to the database", "kind")
        self._in_use = gauge("lanes_in_use", "Exclusive connections that a request uses")
        self._in_flight = gauge("lanes_in_flight", "Requests on the shared connections")
        self._queued = gauge("lanes_queued", "Requests that wait for an exclusive connection")
        self._waits = counter("lane_waits", "Waits for an exclusive connection that have ended")
        self._waited = counter("lane_wait_seconds", "Time of those waits")
        self._trips = counter("database_round_trips", "Requests sent to the database")
        self._lost = counter("database_connections_lost", "Connections to the database that broke")
        self._failures = counter(
            "database_errors", "Statements that failed, by SQLSTATE or constraint (slot_taken: a conflict)", "reason"
        )
        self._unwritten = counter("log_lines_dropped", "Lines of the log that nobody read in time")
        self._audited = counter("audit_events_written", "Audit events of reads and refusals in the database")
        self._unaudited = counter("audit_events_dropped", "Audit events that found no room, or that no one may keep")
        self._keys = KeyMetrics(keys, registry)
        self._relay = RelayMetrics(tallies[0], registry)
        self._subscriptions = SubscriptionMetrics(tallies[1], registry)
        self._replica = ReplicaMetrics(replica, registry) if replica is not None else None

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (route, method, status)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._children(route, method, status)
        count, observe, more = known
        count()
        observe(seconds)
        if more is not None:
            more()

    def _children(self, route: str, method: str, status: int) -> tuple[Count, Observe, Count | None]:
        labels = (route, method, str(status))
        more: Count | None = None
        if status >= 400:
            more = self._errors.labels(*labels).inc
        outcome = _OUTCOMES.get(status)
        if outcome is not None and (route, method) == ("Appointment", "POST"):
            booked, error = self._bookings.labels(outcome).inc, more

            def more() -> None:
                booked()
                if error is not None:
                    error()

        return self._requests.labels(*labels).inc, self._seconds.labels(route, method).observe, more

    def sample(self) -> None:
        """Take over what the gate and the connections count by themselves."""
        gate, lanes = self._gate, self._measured()
        self._running.set(gate.running)
        self._waiting.set(gate.waiting)
        self._lanes.labels("shared").set(lanes.shared)
        self._lanes.labels("exclusive").set(lanes.exclusive)
        self._in_use.set(lanes.in_use)
        self._in_flight.set(lanes.in_flight)
        self._queued.set(lanes.queued)
        for metric, name, value in (
            (self._refused, "refused", gate.refused),
            (self._waits, "waits", lanes.waits),
            (self._waited, "waited", lanes.waited_s),
            (self._trips, "trips", lanes.round_trips),
            (self._lost, "lost", lanes.lost),
            (self._unwritten, "unwritten", self._dropped()),
            (self._audited, "audited", self._journal.written if self._journal else 0),
            (self._unaudited, "unaudited", self._journal.dropped if self._journal else 0),
            *((self._failures.labels(reason), reason, count) for reason, count in TRANSLATED.items()),
        ):
            metric.inc(value - self._last.get(name, 0))
            self._last[name] = value
        self._keys.sample()
        self._relay.sample()
        self._subscriptions.sample()
        if self._replica is not None:
            self._replica.sample()

    def exposition(self) -> bytes:
        """All metrics, of every process, as Prometheus reads them (text format 0.0.4)."""
        self.sample()
        shown = self.registry
        if self._directory:
            self._forget_the_dead(self._directory)
            shown = CollectorRegistry()
            multiprocess.MultiProcessCollector(shown, self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(shown) + generate_latest(_Processes(self._pids()))

    def _pids(self) -> list[int]:
        if not self._directory:
            return [os.getpid()]
        found = {_pid(path) for path in Path(self._directory).glob("counter_*.db")}
        return sorted(pid for pid in found if psutil.pid_exists(pid))

    def _forget_the_dead(self, directory: str) -> None:
        for path in Path(directory).glob("gauge_live*.db"):
            if not psutil.pid_exists(_pid(path)):
                multiprocess.mark_process_dead(_pid(path), directory)  # type: ignore[no-untyped-call]


def _pid(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


class _Processes(Collector):
    """CPU time, memory and open files of the server's processes, by pid."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """The three metrics."""
        cpu = CounterMetricFamily("process_cpu_seconds", "User and system CPU time", labels=["pid"])
        memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", labels=["pid"])
        files = GaugeMetricFamily("process_open_fds", "Open file descriptors", labels=["pid"])
        started = GaugeMetricFamily("process_start_time_seconds", "Start, seconds since 1970", labels=["pid"])
        for pid in self._pids:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    cpu.add_metric([str(pid)], sum(process.cpu_times()[:2]))
                    memory.add_metric([str(pid)], process.memory_info().rss)
                    files.add_metric([str(pid)], process.num_fds())
                    started.add_metric([str(pid)], process.create_time())
        return [cpu, memory, files, started]
