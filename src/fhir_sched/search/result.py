"""Result parameters: _sort, _count, _total, _summary, _elements, _include, _revinclude, the page. R4 3.1.1.5.

Each reader puts what it read into a Draft, or refuses it with a 400. Knows nothing of conditions or SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fhir_sched.definition import ReferenceParam, Resource
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.search import page
from fhir_sched.search.query import Condition, Include, Sort
from fhir_sched.subset import SUMMARIES

MAX_COUNT = 1000
DEFAULT_COUNT = 50
MAX_INCLUDES = 20
_TOTALS = ("none", "estimate", "accurate")


class UnknownParameterError(Exception):
    """A parameter that is not supported: refused or left out, by handling."""


@dataclass
class Draft:
    """What has been read of a request so far; `single` are parameters that may have one value."""

    conditions: list[Condition] = field(default_factory=list)
    sort: list[Sort] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    single: dict[str, str] = field(default_factory=dict)


Resources = Mapping[str, Resource]


def _sort(resources: Resources, resource: Resource, name: str, text: str, draft: Draft) -> None:
    keys = []
    for key in filter(None, (part.strip() for part in text.split(","))):
        param = resource.param.get(key.removeprefix("-"))
        if param is None or not param.sortable:
            allowed = ", ".join(sorted(each.name for each in resource.params if each.sortable))
            raise UnknownParameterError(f"{resource.type} can't be sorted by {key!r}; it sorts by {allowed}")
        keys.append(Sort(param, key.startswith("-")))
    # All or none: what was not used is not in the self link, and the pages are those of the self link.
    for sort in keys:
        if all(each.param is not sort.param for each in draft.sort):
            draft.sort.append(sort)


def _count(resources: Resources, resource: Resource, name: str, text: str, draft: Draft) -> None:
    count(text)
    _last(name, text, draft)


def count(text: str) -> int:
    """How many entries a page has, MAX_COUNT where more are asked for. Raises 400 for what is no number from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise FhirError(Kind.VALUE, f"_count is a whole number from 0 on, not {text[:40]!r}")
    return MAX_COUNT if len(text.lstrip("0")) > len(str(MAX_COUNT)) else min(int(text[-9:]), MAX_COUNT)


def _one_of(resources: Resources, resource: Resource, name: str, text: str, draft: Draft) -> None:
    allowed = _TOTALS if name == "_total" else SUMMARIES
    if text not in allowed:
        raise FhirError(Kind.VALUE, f"{name} is one of {', '.join(allowed)}, not {text!r}")
    _last(name, text, draft)


def _last(name: str, text: str, draft: Draft) -> None:
    """Of several values the last one counts, and the self link has that one alone."""
    draft.single[name] = text
    draft.used = [pair for pair in draft.used if pair[0] != name]


def _text(resources: Resources, resource: Resource, name: str, text: str, draft: Draft) -> None:
    if name in draft.single:
        raise FhirError(Kind.VALUE, f"{name} may be given once")
    draft.single[name] = text


def _include(resources: Resources, resource: Resource, name: str, text: str, draft: Draft) -> None:
    kind, _, modifier = name.partition(":")
    if modifier not in ("", "iterate", "recurse"):
        raise FhirError(Kind.NOT_SUPPORTED, f"{kind} has no modifier {modifier!r}; it takes iterate")
    found = list(_included(resources, resource, kind, text, iterate=bool(modifier)))
    if not found:
        raise UnknownParameterError(f"{name}={text} includes nothing that is served here; it was not used")
    draft.includes.extend(found)
    if len(draft.includes) > MAX_INCLUDES:
        raise FhirError(Kind.VALUE, f"a search takes at most {MAX_INCLUDES} includes")


def _included(resources: Resources, resource: Resource, kind: str, text: str, *, iterate: bool) -> Iterable[Include]:
    if text == "*":  # all that there is: of the type searched, or of every type that may refer to it
        for name in [resource.type] if kind == "_include" else resources:
            yield from _included(resources, resource, kind, f"{name}:*", iterate=iterate)
        return
    parts = text.split(":")
    source = resources.get(parts[0])
    if source is None or len(parts) not in (2, 3):
        return
    target = parts[2] if len(parts) == 3 else ""
    for param in source.params:
        if isinstance(param, ReferenceParam) and parts[1] in ("*", param.name) and target in ("", *param.targets):
            yield Include(source, param, target, kind == "_revinclude", iterate)


Reader = Callable[[Resources, Resource, str, str, Draft], None]

READERS: dict[str, Reader] = {
    "_sort": _sort,
    "_count": _count,
    "_total": _one_of,
    "_summary": _one_of,
    "_elements": _text,
    "_include": _include,
    "_revinclude": _include,
    page.PARAMETER: _text,
}
