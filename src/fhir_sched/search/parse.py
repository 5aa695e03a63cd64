"""Request parameters -> Query. Every refusal of a search is here or in `values`. R4 3.1.1.

Unknown parameters are refused under `handling=strict` and otherwise left out and said; unknown modifiers are always
refused. Knows nothing of SQL or HTTP: it is given decoded pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fhir_sched.definition import DateParam, Param, ReferenceParam, Resource, TokenParam
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.search import page, values
from fhir_sched.search.query import Chain, Condition, Criterion, Has, Include, Query, Sort

MAX_COUNT = 1000
DEFAULT_COUNT = 50
MAX_PARAMETERS = 100
MAX_VALUES = 500
MAX_CHAIN = 4
MAX_INCLUDES = 20
NOT_OURS = frozenset({"_format", "_pretty"})  # read by negotiation
_SUMMARIES = ("true", "text", "data", "count", "false")
_TOTALS = ("none", "estimate", "accurate")


class _Unknown(Exception):
    """A parameter that is not supported: refused or left out, by handling."""


@dataclass
class _Draft:
    """What has been read so far."""

    conditions: list[Condition] = field(default_factory=list)
    sort: list[Sort] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    single: dict[str, str] = field(default_factory=dict)


class Parser:
    """Reads the parameters of one request; `resources` are all types (for chains and includes), `base` our FHIR base."""

    def __init__(self, resources: Mapping[str, Resource], base: str, tenant: str) -> None:
        self.resources, self.base, self.tenant = resources, base, tenant

    def query(self, resource: Resource, pairs: Iterable[tuple[str, str]], *, strict: bool) -> Query:
        """The Query of a type-level search. Raises FhirError 400 with every issue found."""
        draft = _Draft()
        given = [(name, text) for name, text in pairs if name not in NOT_OURS]
        if len(given) > MAX_PARAMETERS:
            raise FhirError(Kind.VALUE, f"a search takes at most {MAX_PARAMETERS} parameters, not {len(given)}")
        for name, text in given:
            try:
                self._read(resource, name, text, draft)
            except _Unknown as unknown:
                draft.ignored.append(str(unknown))
            except FhirError as error:
                draft.issues.extend(error.issues)
        if strict:
            draft.issues.extend(Issue(Kind.NOT_SUPPORTED, why) for why in draft.ignored)
        if draft.issues:
            raise FhirError.of(draft.issues)
        return self._finish(resource, draft)

    def _read(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        reader = _RESULT.get(name.partition(":")[0])
        if reader is None and not text.strip():
            raise _Unknown(f"search parameter {name!r} has no value and was not used")
        if reader is not None:
            reader(self, resource, name, text, draft)
        else:
            draft.conditions.append(self.condition(resource, name, text))
        if name != page.PARAMETER:
            draft.used.append((name, text))

    def _finish(self, resource: Resource, draft: _Draft) -> Query:
        sort = tuple(draft.sort) or (Sort(resource.param[resource.default_sort], False),)
        summary = draft.single.get("_summary", "")
        count = int(draft.single.get("_count", DEFAULT_COUNT))
        used = tuple(draft.used)
        token = draft.single.get(page.PARAMETER)
        digest = page.digest(self.tenant, resource.type, used)
        if summary == "text" and draft.includes:
            raise FhirError(Kind.INVALID, "_summary=text can't be combined with _include or _revinclude")
        return Query(
            resource,
            tuple(draft.conditions),
            sort,
            min(count, MAX_COUNT),
            count_only=count == 0 or summary == "count",
            total=draft.single.get("_total", ""),
            includes=tuple(draft.includes),
            position=page.decode(token, digest, len(sort)) if token else None,
            used=used,
            ignored=tuple(draft.ignored),
            summary="" if summary in ("false", "count") else summary,
            elements=tuple(filter(None, draft.single.get("_elements", "").split(","))),
        )

    # Conditions

    def condition(self, resource: Resource, name: str, text: str, depth: int = 0) -> Condition:
        """One condition. Raises _Unknown for a parameter that there is not, FhirError 400 for what is wrong with it."""
        if depth > MAX_CHAIN:
            raise FhirError(Kind.VALUE, f"search parameter {name}: a chain may have at most {MAX_CHAIN} links")
        if name.startswith("_has:"):
            return self._has(resource, name, text, depth)
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        param = resource.param.get(code)
        if param is None or not param.bindings:
            raise _Unknown(f"{resource.type} has no search parameter {code!r}; it was not used{_near(resource, code)}")
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
            raise _Unknown(f"search parameter {param.name!r} has no value and was not used")
        if len(parts) > MAX_VALUES:
            raise FhirError(Kind.VALUE, f"search parameter {param.name} takes at most {MAX_VALUES} values")
        found = tuple(values.value(param, part, self.base, modifier if modifier != "not" else "") for part in parts)
        return Criterion(param, found, modifier if modifier in ("not", "identifier") else "")

    def _allowed(self, param: Param, modifier: str) -> bool:
        if not modifier or modifier in modifiers(param):
            return True
        return isinstance(param, ReferenceParam) and (modifier in param.targets if param.targets else modifier[:1].isupper())

    def _chain(self, param: Param, modifier: str, rest: str, text: str, depth: int) -> Chain:
        if not isinstance(param, ReferenceParam):
            raise FhirError(Kind.NOT_SUPPORTED, f"search parameter {param.name} is no reference and can't be chained")
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
        if source is None or not isinstance(param, ReferenceParam) or resource.type not in (param.targets or (resource.type,)):
            raise FhirError(
                Kind.NOT_SUPPORTED,
                f"{name!r} can't be searched; write _has:Type:reference:parameter with a Type served here "
                f"({', '.join(self.resources)}) whose reference points at {resource.type}",
            )
        return Has(source, param, self._inner(source, parts[3], text, depth))

    def _inner(self, resource: Resource, name: str, text: str, depth: int) -> Condition:
        """A chained parameter: an unknown one is an error here, since leaving it out would widen the search silently."""
        try:
            return self.condition(resource, name, text, depth + 1)
        except _Unknown as unknown:
            raise FhirError(Kind.NOT_SUPPORTED, str(unknown).replace("; it was not used", "")) from None

    # Result parameters

    def _sort(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        for key in filter(None, (part.strip() for part in text.split(","))):
            param = resource.param.get(key.removeprefix("-"))
            if param is None or not param.sortable:
                allowed = ", ".join(sorted(each.name for each in resource.params if each.sortable))
                raise _Unknown(f"{resource.type} can't be sorted by {key!r}; it sorts by {allowed}")
            if all(sort.param is not param for sort in draft.sort):
                draft.sort.append(Sort(param, key.startswith("-")))

    def _count(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise FhirError(Kind.VALUE, f"_count is a whole number from 0 on, not {text!r}")
        draft.single["_count"] = text

    def _one_of(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        allowed = _TOTALS if name == "_total" else _SUMMARIES
        if text not in allowed:
            raise FhirError(Kind.VALUE, f"{name} is one of {', '.join(allowed)}, not {text!r}")
        draft.single[name] = text

    def _text(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        if name in draft.single and name == page.PARAMETER:
            raise FhirError(Kind.VALUE, f"{name} may be given once")
        draft.single[name] = text

    def _include(self, resource: Resource, name: str, text: str, draft: _Draft) -> None:
        kind, _, modifier = name.partition(":")
        if modifier not in ("", "iterate", "recurse"):
            raise FhirError(Kind.NOT_SUPPORTED, f"{kind} has no modifier {modifier!r}; it takes iterate")
        found = list(self._included(resource, kind, text, bool(modifier)))
        if not found:
            raise _Unknown(f"{name}={text} includes nothing that is served here; it was not used")
        draft.includes.extend(found)
        if len(draft.includes) > MAX_INCLUDES:
            raise FhirError(Kind.VALUE, f"a search takes at most {MAX_INCLUDES} includes")

    def _included(self, resource: Resource, kind: str, text: str, iterate: bool) -> Iterable[Include]:
        parts = text.split(":")
        source = self.resources.get(parts[0])
        if source is None or len(parts) not in (2, 3):
            return
        target = parts[2] if len(parts) == 3 else ""
        for param in source.params:
            if isinstance(param, ReferenceParam) and parts[1] in ("*", param.name) and target in ("", *param.targets):
                yield Include(source, param, target, kind == "_revinclude", iterate)


_RESULT = {
    "_sort": Parser._sort,
    "_count": Parser._count,
    "_total": Parser._one_of,
    "_summary": Parser._one_of,
    "_elements": Parser._text,
    "_include": Parser._include,
    "_revinclude": Parser._include,
    page.PARAMETER: Parser._text,
}


def modifiers(param: Param) -> tuple[str, ...]:
    """The modifiers that a parameter takes, besides type names for references."""
    match param:
        case TokenParam(kind="id"):
            return ("not",)
        case TokenParam():
            return ("missing", "not")
        case ReferenceParam():
            return ("missing", "identifier")
        case DateParam():
            return ("missing",)
        case _:
            return ("missing",)


def _near(resource: Resource, code: str) -> str:
    close = [name for name in resource.param if name.replace("-", "").lower() == code.replace("-", "").lower()]
    return f" (did you mean {close[0]!r}?)" if close else ""
