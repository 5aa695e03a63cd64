"""Metrics of Subscriptions for Prometheus: how they stand, what is sent, how far behind the sending is.

Law: a label is the type of a channel, the kind of a notification or a status; no tenant, no endpoint. Of several
processes the highest figure of the database counts, since all look at the same.
"""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge

from fhir_sched.subscriptions.tally import CHANNEL, Heard


class SubscriptionMetrics:
    """What a tally holds, taken over by `sample`."""

    def __init__(self, tally: Heard, registry: CollectorRegistry) -> None:
        self._tally = tally

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            labelled = ["channel", *labels]
            return Gauge(f"fhir_sched_{name}", text, labelled, registry=registry, multiprocess_mode="livemax")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fhir_sched_subscription_{name}", text, ["channel", *labels], registry=registry)

        self._standing = gauge("subscriptions", "Subscriptions", "status")
        self._waiting = gauge("subscription_waiting", "Events of active Subscriptions that no endpoint has taken yet")
        self._oldest = gauge("subscription_oldest_seconds", "Time since the oldest of them happened")
        self._taken = counter("notifications", "Notifications that an endpoint has taken", "kind")
        self._failed = counter("failures", "Attempts that failed", "kind")
        self._events = counter("events", "Events in the notifications that were taken")
        self._last: tuple[Counts[str], Counts[str], int] = (Counts(), Counts(), 0)

    def sample(self) -> None:
        """Take over what is known at this moment."""
        tally, (taken, failed, events) = self._tally, self._last
        for status, count in tally.standing.items():
            self._standing.labels(CHANNEL, status).set(count)
        self._waiting.labels(CHANNEL).set(tally.waiting)
        self._oldest.labels(CHANNEL).set(tally.oldest_s)
        for metric, now, before in ((self._taken, tally.taken, taken), (self._failed, tally.failed, failed)):
            for kind, total in now.items():
                metric.labels(CHANNEL, kind).inc(total - before[kind])
        self._events.labels(CHANNEL).inc(tally.events - events)
        self._last = Counts(tally.taken), Counts(tally.failed), tally.events
