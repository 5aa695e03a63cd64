"""Metrics of the relay for Prometheus: the backlog of the outbox, deliveries and failures by sink.

Law: the label is a sink's name, which the operator chose and which holds no secret. Of several processes the one with
the highest backlog counts, since all look at the same. Knows no event.
"""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge

from fhir_sched.events.tally import Tally


class RelayMetrics:
    """What a tally holds, taken over by `sample`."""

    def __init__(self, tally: Tally, registry: CollectorRegistry) -> None:
        self._tally = tally

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"fhir_sched_outbox_{name}", text, registry=registry, multiprocess_mode="livemax")

        def counter(name: str, text: str) -> Counter:
            return Counter(f"fhir_sched_relay_{name}", text, ["sink"], registry=registry)

        self._waiting = gauge("waiting", "Events that are not published, counted up to 100,000")
        self._oldest = gauge("oldest_seconds", "Time since the oldest of them was written")
        self._parked = gauge("parked", "Deliveries that a sink has refused too often")
        self._delivered = counter("deliveries", "Events that the sink has taken")
        self._refused = counter("refusals", "Attempts that the sink refused for good")
        self._unavailable = counter("failures", "Attempts that failed because the sink was not available")
        self._last: dict[str, Counts[str]] = {}

    def sample(self) -> None:
        """Take over what is known at this moment."""
        tally = self._tally
        self._waiting.set(tally.waiting)
        self._oldest.set(tally.oldest_s)
        self._parked.set(tally.parked)
        self._count("delivered", self._delivered, tally.delivered)
        self._count("refused", self._refused, tally.refused)
        self._count("unavailable", self._unavailable, tally.unavailable)

    def _count(self, name: str, metric: Counter, totals: Counts[str]) -> None:
        last = self._last.get(name, Counts())
        for sink, total in totals.items():
            metric.labels(sink).inc(total - last[sink])
        self._last[name] = Counts(totals)
