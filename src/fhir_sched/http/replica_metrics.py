"""Metrics of the replica, where there is one: whether it is read, how late it is, what it answers and what it costs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from fhir_sched.db.replica import Replica


class ReplicaMetrics:
    """They are current after `sample`."""

    def __init__(self, replica: Replica, registry: CollectorRegistry) -> None:
        self._measured = replica.measured
        self._last: dict[str, float] = {}
        self._in_use = Gauge(
            "fhir_sched_replica_in_use",
            "Processes that read the replica",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._connected = Gauge(
            "fhir_sched_replica_connected", "Connections to the replica", registry=registry, multiprocess_mode="livesum"
        )
        self._lag = Gauge(
            "fhir_sched_replica_lag_seconds",
            "How long it took the replica to replay what was last looked for",
            registry=registry,
            multiprocess_mode="livemax",
        )
        reads = Counter("fhir_sched_replica_reads", "Reads that may go to the replica", ("outcome",), registry=registry)
        self._counters = {
            "answered": reads.labels("answered"),
            "refused": reads.labels("refused"),
            "passed": reads.labels("passed"),
            "waits": Counter("fhir_sched_replica_waits", "Answers that waited for the replica", registry=registry),
            "waited_s": Counter("fhir_sched_replica_wait_seconds", "Time of those waits", registry=registry),
        }

    def sample(self) -> None:
        """Take over what the replica counts by itself."""
        measured = self._measured()
        self._in_use.set(measured.in_use)
        self._connected.set(measured.connected)
        self._lag.set(measured.lag_s)
        for name, counter in self._counters.items():
            value = getattr(measured, name)
            counter.inc(value - self._last.get(name, 0))
            self._last[name] = value
