"""What a create or update of a Subscription asks beyond being valid R4, and what is kept with it. Backport 1.1.0.

Law: an unknown topic, filter, channel or payload is 422 when it is asked for, and so is an endpoint that nothing may be
sent to; whose scopes do not let it read what it wants to hear of gets 403. Knows nothing of delivery.
"""

from __future__ import annotations

from typing import Any

from fhir_sched import mapping
from fhir_sched.definition import Source
from fhir_sched.element import Columns
from fhir_sched.events.webhook import EndpointError, Webhooks
from fhir_sched.interactions.context import Context
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.resources import SUBSCRIPTION
from fhir_sched.resources.topics import TOPICS
from fhir_sched.security.decision import decide
from fhir_sched.security.guard import refused
from fhir_sched.subscriptions import channel, filters, subscriber

_SERVER_SET = frozenset({"error", "_error"})


def columns(context: Context, source: Source, document: dict[str, Any]) -> Columns:
    """The columns of a valid Subscription, with the subscriber's. Raises 422 with all that is not served, 403."""
    issues = [
        *filters.refusals(document, context.parser),
        *channel.refusals(document),
        *_endpoint(context, document["channel"].get("endpoint")),
    ]
    if issues:
        raise FhirError.of(issues)
    topic = TOPICS[document["criteria"]]
    for letter in subscriber.NEEDED:
        if not decide(context.caller, letter, topic.resource).allowed:
            raise refused(letter, topic.resource)
    written = {name: value for name, value in document.items() if name not in _SERVER_SET}
    patient = subscriber.patient_uuid(context.caller, context.base)
    return {
        **mapping.to_columns(SUBSCRIPTION, source, written, context.base).columns,
        "error": None,
        "caller": subscriber.to_column(context.caller),
        "base": context.base.encode(),
        "patient_id": None if patient is None else patient.encode(),
    }


def _endpoint(context: Context, url: Any) -> list[Issue]:
    """Why nothing may be sent to the endpoint; its host's addresses are looked at again when something is."""
    if not isinstance(url, str):
        return []
    try:
        Webhooks(private=context.settings.allow_private_endpoints).check(url)
    except EndpointError as error:
        return [Issue(Kind.BUSINESS_RULE, f"the endpoint {error}", "Subscription.channel.endpoint")]
    return []
