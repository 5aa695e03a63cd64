"""Settings -> what tells subscribers. The one place that reads them."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_sched.events.webhook import Webhooks
from fhir_sched.settings import Auth, Settings
from fhir_sched.subscriptions.delivery import Delivery
from fhir_sched.subscriptions.fanout import Fanout
from fhir_sched.subscriptions.tally import Heard


@dataclass(frozen=True, slots=True)
class Telling:
    """The fan-out for the relay of a process, and the sender that it wakes."""

    fanout: Fanout
    delivery: Delivery


def build(settings: Settings, *, tally: Heard | None = None) -> Telling | None:
    """Both, not running yet; None without a database."""
    if settings.database_url is None:
        return None
    tokens = settings.auth is not Auth.OPEN
    delivery = Delivery(
        settings.database_url,
        Webhooks(private=settings.allow_private_endpoints),
        tokens=tokens,
        keep_days=settings.keep_events_days,
        tally=tally,
    )
    return Telling(Fanout(tokens=tokens, wake=delivery.wake), delivery)
