"""What a resource is: its tables, its elements, its search parameters. Declarations only; others read them.

A `Resource` is served from one or more `Source` tables. A search parameter has one definition (R4's) and, for each
source, a `Binding` (see `binding`) that says which column or side-table entry answers it. R4 3.1.1.4 and 3.1.1.5.
Knows nothing of requests, SQL text or rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fhir_sched.binding import Binding, References
from fhir_sched.element import Element
from fhir_sched.extensions import Extensions


@dataclass(frozen=True)
class Param:
    """One search parameter as R4 defines it."""

    name: str
    expression: str
    doc: str
    bindings: tuple[Binding, ...] = ()
    sortable: bool = False
    definition: str = ""

    @property
    def type(self) -> str:
        """The search parameter type of R4."""
        return {
            "DateParam": "date",
            "TokenParam": "token",
            "ReferenceParam": "reference",
            "StringParam": "string",
            "UriParam": "uri",
        }[type(self).__name__]


@dataclass(frozen=True)
class DateParam(Param):
    """A date parameter (R4 3.1.1.4.7)."""


@dataclass(frozen=True)
class TokenParam(Param):
    """A token parameter (R4 3.1.1.4.10).

    `system` is the implicit one of a bound code. `kind` is the shape of the element: concept, code, identifier,
    boolean, coding or id. `codes` are all codes there are, where R4 binds the element to them.
    """

    kind: str = "concept"
    system: str = ""
    codes: frozenset[str] = frozenset()
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReferenceParam(Param):
    """A reference parameter (R4 3.1.1.4.12): the element at `path`, `targets` the types it may point at (none: any)."""

    targets: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class StringParam(Param):
    """A string parameter (R4 3.1.1.4.8) of an element that has one of the `codes`.

    It finds what begins so, without regard to case and accents, or with `:exact` is the same to the letter.
    """

    codes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class UriParam(Param):
    """A uri parameter (R4 3.1.1.4.13)."""

    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One table behind a resource: the prefix of its ids and the element table.

    `zone_from` says how a row finds its schedule's zone: the column with the schedule's id, or `self`. `mark` is the
    element and value (for `extension`: a URL) by which a new resource belongs to this table and not to the first.
    `kind` is the letter by which the side table tells the rows of this table. `identified`: the resource shows the
    business identifier that we give.
    """

    table: str
    prefix: str
    kind: str
    elements: tuple[Element, ...]
    selects: dict[str, str] = field(default_factory=dict)
    zone_from: str = ""
    mark: tuple[str, str] | None = None
    identified: bool = True

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that a read selects, in order: four of every row, then those of the elements, each once."""
        shown = dict.fromkeys(column for element in self.elements for column in element.shown)
        return (*HEAD, *(column for column in shown if column not in HEAD))

    @cached_property
    def naming(self) -> tuple[tuple[str, str], ...]:
        """URL of each extension that names other resources, and their type."""
        parts = (part for each in self.elements if isinstance(each, Extensions) for part in each.parts)
        return tuple((part.url, part.names) for part in parts if part.names)

    @cached_property
    def select_list(self) -> tuple[str, ...]:
        """The SQL expressions of `columns`, for a row called `a`."""
        return tuple(self.selects.get(column, f"a.{column}") for column in self.columns)


HEAD = ("id", "version", "updated_at", "fhir")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

METHODS: Mapping[str, str] = {
    "read": "GET",
    "vread": "GET",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "history-instance": "GET",
    "history-type": "GET",
    "create": "POST",
    "search-type": "GET",
    "search-form": "POST",
    "conditional-read": "GET",
    "conditional-create": "POST",
    "conditional-update": "PUT",
    "conditional-patch": "PATCH",
    "conditional-delete": "DELETE",
    "validate": "POST",
    "validate-instance": "POST",
    "validate-stored": "GET",
}
"""The interactions that a resource may have and their methods, by R4's code or, where it has none, a name of ours."""

SYSTEM_METHODS: Mapping[str, str] = {
    "transaction": "POST",
    "batch": "POST",
    "search-system": "GET",
    "search-system-form": "POST",
    "search-compartment": "GET",
    "search-compartment-form": "POST",
    "history-system": "GET",
}
"""The interactions on all resources together, in the same way."""


@dataclass(frozen=True)
class Resource:
    """A resource type: its sources (the first is the one that new ids come from), what can be done and searched.

    The routes and the CapabilityStatement both read `interactions` and `params`, so that one can't say what the other
    does not do.
    """

    type: str
    doc: str
    sources: tuple[Source, ...]
    params: tuple[Param, ...]
    default_sort: str
    """The order of a search that names none, as `_sort` takes it."""
    interactions: tuple[str, ...] = tuple(METHODS)
    own: ReferenceParam | None = None
    """What a patient's limits compare, where the search parameter `patient` is none of R4's for this type."""

    @cached_property
    def param(self) -> dict[str, Param]:
        """Search parameters by name."""
        return {param.name: param for param in self.params}

    @cached_property
    def source(self) -> dict[str, Source]:
        """Sources by the prefix of their ids."""
        return {source.prefix: source for source in self.sources}

    @cached_property
    def of_patient(self) -> ReferenceParam | None:
        """The reference by which one patient's are told from others'; None for a type that has no such."""
        found = self.own or self.param.get("patient")
        return found if isinstance(found, ReferenceParam) else None

    @cached_property
    def hosted(self) -> tuple[ReferenceParam, ...]:
        """The reference parameters that lead to resources served here: those that `_include` follows."""
        references = (param for param in self.params if isinstance(param, ReferenceParam))
        return tuple(param for param in references if any(_is_hosted(binding) for binding in param.bindings))

    def definition(self, param: Param) -> str:
        """The canonical URL of the SearchParameter that defines one of its parameters."""
        return param.definition or f"http://hl7.org/fhir/SearchParameter/{self.type}-{param.name}"

    def source_of(self, document: Mapping[str, Any]) -> Source:
        """The table that a new resource goes to."""
        return next((source for source in self.sources[1:] if _marked(document, source.mark)), self.sources[0])

    def parse_id(self, fhir_id: str) -> tuple[Source, str] | None:
        """The source and UUID of a logical id; None where the id can't be one of this resource."""
        prefix, _, text = fhir_id.partition("-")
        source = self.source.get(prefix)
        if source is None or _UUID.fullmatch(text) is None:
            return None
        return source, text


def _is_hosted(binding: Binding) -> bool:
    return isinstance(binding, References) and bool(binding.prefix)


def _marked(document: Mapping[str, Any], mark: tuple[str, str] | None) -> bool:
    if mark is None:
        return False
    name, wanted = mark
    if name != "extension":
        return document.get(name) == wanted
    return any(extension.get("url") == wanted for extension in document.get("extension", ()))
