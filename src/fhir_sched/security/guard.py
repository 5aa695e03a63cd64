"""A Query -> the Query that this caller may ask: every limit of the scopes put into it. SMART App Launch 2.2.

Nothing is filtered after the search: a limit is a condition like any other, in chains, `_has` and includes too, so
that paging, totals and links are those of what the caller may see. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fhir_sched.binding import Everyone
from fhir_sched.definition import ReferenceParam, Resource
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import AnyOf, Chain, Condition, Criterion, Has, Include, Query, ReferenceValue, Value
from fhir_sched.search.result import UnknownParameterError
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import Decision, Limit, decide

NOTHING = AnyOf(())
_PEOPLE = frozenset({"Patient", "RelatedPerson"})


def refused(letter: str, resource_type: str) -> FhirError:
    """403: the scopes do not reach so far."""
    return FhirError(
        Kind.FORBIDDEN,
        f"the token's scopes do not allow this; it needs a scope such as user/{resource_type}.{letter}",
        headers=(("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="user/{resource_type}.{letter}"'),),
    )


class Guard:
    """Puts the limits of one caller into queries; `parser` reads the queries of granular scopes."""

    def __init__(self, caller: Caller, parser: Parser) -> None:
        self.caller, self.parser = caller, parser

    def query(self, query: Query) -> Query:
        """The same search within the caller's limits. Raises 403 where none of its types may be searched."""
        if self.caller.everything:
            return query
        every = (query, *query.also)
        allowed = [each for each in every if decide(self.caller, "s", each.resource.type).allowed]
        if not allowed:
            raise refused("s", query.resource.type)
        includes, left_out = self._includes(query.includes)
        first, *others = [replace(each, conditions=self._conditions(each), also=()) for each in allowed]
        return replace(
            first, also=tuple(others), includes=includes, ignored=(*query.ignored, *left_out), used=query.used
        )

    def limits(self, resource: Resource, letter: str) -> tuple[Condition, ...]:
        """What must hold for a resource of that type so that the caller may do it. Raises 403 where nothing would."""
        decision = decide(self.caller, letter, resource.type)
        if not decision.allowed:
            raise refused(letter, resource.type)
        return self._of(decision, resource)

    def _of(self, decision: Decision, resource: Resource) -> tuple[Condition, ...]:
        if decision.unlimited:
            return ()
        groups = [group for limit in decision.limits if (group := self._group(limit, resource)) is not None]
        return groups[0] if len(groups) == 1 else (AnyOf(tuple(groups)),)

    def _group(self, limit: Limit, resource: Resource) -> tuple[Condition, ...] | None:
        """The conditions of one alternative; None where its query is not understood, which grants nothing."""
        conditions: list[Condition] = []
        if limit.patient:
            kind, _, fhir_id = limit.patient.rpartition("/")
            param = resource.of_patient
            if param is None:
                return None
            conditions.append(Criterion(param, (ReferenceValue(kind or "Patient", fhir_id),)))
        try:
            conditions += [self.parser.condition(resource, name, text) for name, text in limit.query]
        except (FhirError, UnknownParameterError):
            return None
        return tuple(conditions)

    def _conditions(self, query: Query) -> tuple[Condition, ...]:
        own = [self._within(condition, query.resource) for condition in query.conditions]
        return (*own, *self.limits(query.resource, "s"))

    def _within(self, condition: Condition, resource: Resource) -> Condition:
        """A condition that tells the caller nothing about what it may not see."""
        match condition:
            case Chain(target=target):
                inner = self._within(condition.criterion, target)
                return replace(condition, criterion=inner, limits=self.limits(target, "s"))
            case Has(resource=source):
                inner = self._within(condition.criterion, source)
                return replace(condition, criterion=inner, limits=self.limits(source, "s"))
            case Criterion(param=ReferenceParam()):
                return self._no_other_patients(condition, resource)
            case Criterion() if any(isinstance(binding, Everyone) for binding in condition.param.bindings):
                return replace(condition, seen_by=self._seen_by(resource))
        return condition

    def _seen_by(self, resource: Resource) -> tuple[str, ...]:
        """How appointments may name the patients whose own alone the caller sees; () for whoever sees others' too."""
        decision = decide(self.caller, "s", resource.type)
        patients = sorted({limit.patient for limit in decision.limits if limit.patient})
        return (*patients, *(f"{self.parser.base}/{patient}" for patient in patients))

    def _no_other_patients(self, criterion: Criterion, resource: Resource) -> Condition:
        """With a patient's limits no criterion may ask who else takes part, nor whose a public schedule is."""
        decision = decide(self.caller, "s", resource.type)
        patients = {limit.patient for limit in decision.limits if limit.patient}
        targets = getattr(criterion.param, "targets", ())
        if not (decision.public or patients) or not _PEOPLE.intersection(targets):
            return criterion
        if criterion.modifier == "identifier":
            return NOTHING
        kept = tuple(each for value in criterion.values for each in _visible(value, targets, patients))
        if criterion.values and not kept:
            return NOTHING
        return replace(criterion, values=kept)

    def _includes(self, includes: Iterable[Include]) -> tuple[tuple[Include, ...], tuple[str, ...]]:
        """The includes whose target type may be read, each with its limits; sentences about the others."""
        kept, left_out = [], []
        for include in includes:
            name = include.source.type if include.reverse else next(iter(include.param.targets), "")
            resource = self.parser.resources.get(name)
            letter = next((one for one in "sr" if decide(self.caller, one, name).allowed), "")
            if resource is None:
                kept.append(include)
            elif letter:
                kept.append(replace(include, limits=self.limits(resource, letter)))
            else:
                left_out.append(f"{name} was not included: the token's scopes do not allow to read it")
        return tuple(kept), tuple(left_out)


def _visible(value: Value, targets: Iterable[str], patients: set[str]) -> Iterator[Value]:
    """The value where it names nobody whom the caller may not ask about; an id without type is read as all others."""
    if not isinstance(value, ReferenceValue) or value.type not in ("", *_PEOPLE):
        yield value
    elif value.url == "":
        kinds = targets if value.type == "" else (value.type,)
        yield from (
            ReferenceValue(kind, value.id) for kind in kinds if kind not in _PEOPLE or f"{kind}/{value.id}" in patients
        )
