"""What a Subscription listens to: its topic, and its filters as conditions of our own search.

Law: a topic or filter that is not understood is refused (422), never left out. Backport 1.1.0, filter-criteria.
Knows nothing of channels, SQL or rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.topics import TOPICS, Topic
from fhir_sched.search.parse import NOT_OURS, Parser
from fhir_sched.search.query import Condition
from fhir_sched.search.result import READERS, UnknownParameterError
from fhir_sched.search.values import form
from fhir_sched.subscriptions.channel import extension_values

_WHERE: Final = "Subscription.criteria"
_MAX_FILTERS: Final = 20
_MAX_CONDITIONS: Final = 100
"""Of all filters together: they are evaluated at each event, beside those of everybody else."""


def filters(document: dict[str, Any]) -> tuple[str, ...]:
    """The filters as they were written; all of them must hold."""
    return tuple(str(value) for value in extension_values(document.get("_criteria"), "backport-filter-criteria"))


def refusals(document: dict[str, Any], parser: Parser) -> Iterator[Issue]:
    """Everything about topic and filters of a valid Subscription that is not served."""
    topic = TOPICS.get(document["criteria"])
    if topic is None:
        yield Issue(
            Kind.BUSINESS_RULE,
            f"{document['criteria'][:200]!r} is no topic that is served; criteria names one of {', '.join(TOPICS)}",
            _WHERE,
        )
        return
    listed = filters(document)
    if len(listed) > _MAX_FILTERS:
        yield Issue(Kind.BUSINESS_RULE, f"a Subscription may have {_MAX_FILTERS} filters at most", _WHERE)
        return
    count = sum(text.count("&") + 1 for text in listed)
    if count > _MAX_CONDITIONS:
        said = f"the filters of a Subscription may have {_MAX_CONDITIONS} conditions at most, not {count}"
        yield Issue(Kind.BUSINESS_RULE, said, _WHERE)
        return
    for text in listed:
        try:
            conditions(topic, text, parser)
        except FhirError as error:
            for issue in error.issues:
                yield Issue(Kind.BUSINESS_RULE, f"filter {text[:200]!r}: {issue.diagnostics}", _WHERE)


def conditions(topic: Topic, text: str, parser: Parser) -> tuple[Condition, ...]:
    """The conditions of one filter, such as `Appointment?patient=Patient/123`. Raises FhirError for any other."""
    kind, mark, query = text.partition("?")
    if kind != topic.resource or not mark or not query.strip():
        raise FhirError(Kind.BUSINESS_RULE, f"a filter of this topic is written {topic.resource}?parameter=value")
    found = []
    for name, value in form(query):
        code = name.partition(":")[0]
        if code in READERS or code in NOT_OURS:
            raise FhirError(Kind.BUSINESS_RULE, f"{code} says how a search answers, and filters nothing")
        try:
            found.append(parser.condition(RESOURCES[topic.resource], name, value))
        except UnknownParameterError as unknown:
            raise FhirError(Kind.BUSINESS_RULE, str(unknown).replace("; it was not used", "")) from None
    return tuple(found)
