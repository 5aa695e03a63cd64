"""Metrics of the authorization servers' keys: how many are held, how old they are, how fetching them goes.

Law: the issuers are those that the settings trust, so their names are few and no client chose them. Of several
processes the one with the highest figure counts. Knows no token.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from fhir_sched.security.jwks import IssuerKeys


class KeyMetrics:
    """The keys of each issuer (by its URL), taken over by `sample`."""

    def __init__(self, keys: Mapping[str, IssuerKeys], registry: CollectorRegistry) -> None:
        self._keys = keys

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"fhir_sched_jwks_{name}", text, ["issuer"], registry=registry, multiprocess_mode="livemax")

        self._held = gauge("keys", "Keys of the issuer that tokens can be checked with")
        self._age = gauge("age_seconds", "Time since the keys were fetched; not there before")
        self._succeeded = gauge("last_success_timestamp_seconds", "When they were fetched, seconds since 1970")
        self._failed = gauge("last_failure_timestamp_seconds", "When they could not be fetched, seconds since 1970")
        self._fetches = Counter(
            "fhir_sched_jwks_fetches", "Attempts to fetch them, by outcome", ["issuer", "outcome"], registry=registry
        )
        self._last: dict[tuple[str, str], int] = {}

    def sample(self) -> None:
        """Take over what is known at this moment."""
        for issuer, keys in self._keys.items():
            attempts = keys.attempts
            self._held.labels(issuer).set(keys.held)
            if attempts.succeeded_at is not None:
                self._age.labels(issuer).set(max(0.0, time.time() - attempts.succeeded_at))
                self._succeeded.labels(issuer).set(attempts.succeeded_at)
            if attempts.failed_at is not None:
                self._failed.labels(issuer).set(attempts.failed_at)
            self._count(issuer, "success", attempts.succeeded)
            self._count(issuer, "failure", attempts.failed)

    def _count(self, issuer: str, outcome: str, total: int) -> None:
        self._fetches.labels(issuer, outcome).inc(total - self._last.get((issuer, outcome), 0))
        self._last[issuer, outcome] = total
