"""Request parameters -> Query. Every refusal of a search is here or in `values`. R4 3.1.1.

Unknown parameters are refused under `handling=strict` and otherwise left out and said; unknown modifiers are always
refused. Knows nothing of SQL or HTTP: it is given decoded pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fhir_sched.definition import DateParam, Param, ReferenceParam, Resource, StringParam, TokenParam
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.r4.structure import RESOURCE_TYPES
from fhir_sched.search import page, values
from fhir_sched.search.query import Chain, Condition, Criterion, Has, Query, Sort
from fhir_sched.search.result import DEFAULT_COUNT, READERS, Draft, UnknownParameterError
from fhir_sched.search.result import count as read_count
from fhir_sched.subset import named

MAX_PARAMETERS = 100
MAX_VALUES = 500
MAX_CHAIN = 4
_UNUSED = "; it was not used"
NOT_OURS = frozenset({"_format", "_pretty"})  # read by negotiation
_LONGEST_REMEMBERED = 120
_MOST_REMEMBERED = 8192
_REMEMBERED: dict[tuple[str, str, str, str], Condition] = {}


class Parser:
    """Reads the parameters of one request; `resources` are all types there are, `base` is our FHIR base."""

    def __init__(self, resources: Mapping[str, Resource], base: str, tenant: str) -> None:
        self.resources, self.base, self.tenant = resources, base, tenant

    def query(
        self,
        resource: Resource,
        pairs: Iterable[tuple[str, str]],
        *,
        strict: bool,
        path: str | None = None,
        within: tuple[Condition, ...] = (),
        tied: tuple[tuple[str, str], ...] = (),
    ) -> Query:
        """The Query of a search of one type. Raises FhirError 400 with every issue found.

        `path` is that of the links where it is not the type, `within` what must hold besides (a compartment),
        `tied` what the links repeat although it was read elsewhere.
        """
        draft = Draft(conditions=list(within), used=list(tied))
        pairs = list(pairs)
        given = [(name, text) for name, text in pairs if name not in NOT_OURS]
        if len(given) > MAX_PARAMETERS:
            raise FhirError(Kind.VALUE, f"a search takes at most {MAX_PARAMETERS} parameters, not {len(given)}")
        for name, text in given:
            try:
                self._read(resource, name, text, draft)
            except UnknownParameterError as unknown:
                draft.ignored.append(str(unknown))
            except FhirError as error:
                draft.issues.extend(error.issues)
        if strict:
            draft.issues.extend(Issue(Kind.NOT_SUPPORTED, why.replace(_UNUSED, "")) for why in draft.ignored)
        if draft.issues:
            raise FhirError.of(draft.issues)
        return self._finish(resource, draft, resource.type if path is None else path, presented(pairs))

    def _read(self, resource: Resource, name: str, text: str, draft: Draft) -> None:
        reader = READERS.get(name.partition(":")[0])
        if not text.strip(" ,") and name != page.PARAMETER:
            raise UnknownParameterError(f"search parameter {name!r} has no value and was not used")
        if reader is not None:
            reader(self.resources, resource, name, text, draft)
        else:
            draft.conditions.append(self._remembered(resource, name, text))
        if name != page.PARAMETER:
            draft.used.append((name, text))

    def _finish(self, resource: Resource, draft: Draft, path: str, presented: tuple[tuple[str, str], ...]) -> Query:
        first = resource.default_sort
        sort = tuple(draft.sort) or (Sort(resource.param[first.removeprefix("-")], first.startswith("-")),)
        summary = draft.single.get("_summary", "")
        count = read_count(draft.single["_count"]) if "_count" in draft.single else DEFAULT_COUNT
        used = tuple(draft.used)
        token = draft.single.get(page.PARAMETER)
        if summary == "text" and draft.includes:
            raise FhirError(Kind.INVALID, "_summary=text can't be combined with _include or _revinclude")
        return Query(
            resource,
            tuple(draft.conditions),
            sort,
            count,
            count_only=count == 0 or summary == "count",
            total=draft.single.get("_total", ""),
            includes=tuple(draft.includes),
            position=page.decode(token, page.digest(self.tenant, path, used), len(sort)) if token else None,
            used=used,
            ignored=tuple(draft.ignored),
            summary="" if summary in ("false", "count") else summary,
            elements=named(draft.single.get("_elements", "")),
            path=path,
            presented=presented,
        )

    # Conditions

    def _remembered(self, resource: Resource, name: str, text: str) -> Condition:
        """`condition`, remembered: many ask for the same status, days and schedules."""
        if len(text) > _LONGEST_REMEMBERED or "ap" in text:  # `ap` depends on the time of asking
            return self.condition(resource, name, text)
        key = (resource.type, self.base, name, text)
        found = _REMEMBERED.get(key)
        if found is None:
            found = self.condition(resource, name, text)
            if len(_REMEMBERED) >= _MOST_REMEMBERED:
                _REMEMBERED.clear()
            _REMEMBERED[key] = found
        return found

    def condition(self, resource: Resource, name: str, text: str, depth: int = 0) -> Condition:
        """One condition. Raises UnknownParameterError for an unknown parameter, FhirError 400 for what is wrong."""
        if depth > MAX_CHAIN:
            raise FhirError(Kind.VALUE, f"search parameter {name}: a chain may have at most {MAX_CHAIN} links")
        if name.startswith("_has:"):
            return self._has(resource, name, text, depth)
        if name == "_query":
            raise FhirError(Kind.NOT_SUPPORTED, f"there is no query {text!r}: _query names none here")
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        param = resource.param.get(code)
        if param is None or not param.bindings:
            raise UnknownParameterError(
                f"{resource.type} has no search parameter {code!r}; it was not used{_near(resource, code)}"
            )
        if dot:
            return self._chain(param, modifier, rest, text, depth)
        return self._criterion(param, modifier, text)

    def _criterion(self, param: Param, modifier: str, text: str) -> Criterion:
        if modifier == "missing":
            if text not in ("true", "false"):
                raise FhirError(Kind.VALUE, f"search parameter {param.name}:missing is true or false, not {text!r}")
            return Criterion(param, (), "missing", text == "true")
        if not self._allowed(param, modifier):
            raise FhirError(
                Kind.NOT_SUPPORTED,
                f"search parameter {param.name} has no modifier {modifier!r}; it takes {', '.join(modifiers(param))}",
            )
        parts = [part for part in values.split(text, ",") if part.strip()]
        if not parts:
            raise UnknownParameterError(f"search parameter {param.name!r} has no value and was not used")
        if len(parts) > MAX_VALUES:
            raise FhirError(Kind.VALUE, f"search parameter {param.name} takes at most {MAX_VALUES} values")
        found = tuple(values.value(param, part, self.base, modifier if modifier != "not" else "") for part in parts)
        return Criterion(param, found, modifier if modifier in ("not", "identifier", "text", "exact") else "")

    def _allowed(self, param: Param, modifier: str) -> bool:
        if not modifier or modifier in modifiers(param):
            return True
        return isinstance(param, ReferenceParam) and modifier in (param.targets or RESOURCE_TYPES)

    def _chain(self, param: Param, modifier: str, rest: str, text: str, depth: int) -> Chain | Criterion:
        if not isinstance(param, ReferenceParam):
            raise FhirError(Kind.NOT_SUPPORTED, f"search parameter {param.name} is no reference and can't be chained")
        types = (modifier,) if modifier else param.targets
        if rest == "identifier" and not any(name in self.resources for name in types):
            # the identifier that the reference itself carries is all that is known here of a resource elsewhere
            return self._criterion(replace(param, targets=types), "identifier", text)
        hosted = [name for name in (param.targets or self.resources) if name in self.resources]
        if modifier:
            hosted = [name for name in hosted if name == modifier]
        if len(hosted) != 1:
            reason = "says which type it means, as in param:Type.other" if hosted else "goes to a type served here"
            raise FhirError(
                Kind.NOT_SUPPORTED,
                f"search parameter {param.name}.{rest}: a chain {reason}; served here are {', '.join(self.resources)}",
            )
        target = self.resources[hosted[0]]
        inner = self._inner(target, rest, text, depth)
        if isinstance(inner, Has):
            raise FhirError(Kind.NOT_SUPPORTED, f"search parameter {param.name}.{rest}: _has can't follow a chain")
        return Chain(param, target, inner)

    def _has(self, resource: Resource, name: str, text: str, depth: int) -> Has:
        parts = name.split(":", 3)
        source = self.resources.get(parts[1]) if len(parts) == 4 else None
        param = source.param.get(parts[2]) if source else None
        if (
            source is None
            or not isinstance(param, ReferenceParam)
            or resource.type not in (param.targets or (resource.type,))
        ):
            raise FhirError(
                Kind.NOT_SUPPORTED,
                f"{name!r} can't be searched; write _has:Type:reference:parameter with a Type served here "
                f"({', '.join(self.resources)}) whose reference points at {resource.type}",
            )
        return Has(source, param, self._inner(source, parts[3], text, depth))

    def _inner(self, resource: Resource, name: str, text: str, depth: int) -> Condition:
        """A chained parameter: an unknown one is an error here; leaving it out would widen the search silently."""
        try:
            return self.condition(resource, name, text, depth + 1)
        except UnknownParameterError as unknown:
            raise FhirError(Kind.NOT_SUPPORTED, str(unknown).replace(_UNUSED, "")) from None


def presented(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What is said of the answer's form: links repeat it, so that the next page comes like the first."""
    return tuple((name, text) for name, text in pairs if name in NOT_OURS and text)


def modifiers(param: Param) -> tuple[str, ...]:
    """The modifiers that a parameter takes, besides type names for references."""
    match param:
        case TokenParam(kind="id"):
            return ("not",)
        case TokenParam(kind="concept" | "coding" | "identifier"):
            return ("missing", "not", "text")
        case TokenParam():
            return ("missing", "not")
        case ReferenceParam():
            return ("missing", "identifier")
        case StringParam():
            return ("missing", "exact")
        case DateParam():
            return ("missing",)
        case _:
            return ("missing",)


def _near(resource: Resource, code: str) -> str:
    close = [name for name in resource.param if name.replace("-", "").lower() == code.replace("-", "").lower()]
    return f" (did you mean {close[0]!r}?)" if close else ""
