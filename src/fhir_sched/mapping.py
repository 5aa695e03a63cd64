"""Resource -> row: its columns are read out of it, and what they will not give back is kept beside them.

A write reads the columns out of the resource, renders them again, and keeps what did not come back (`fhir`): so
nothing can be lost, whatever an element's codec forgets. The way back is `rendering`. Knows nothing of SQL statements,
connections or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_sched import codec
from fhir_sched.actors import role_uuid
from fhir_sched.binding import ReferenceColumn, References
from fhir_sched.definition import Param, ReferenceParam, Resource, Source, TokenParam, UriParam
from fhir_sched.document import dumps
from fhir_sched.element import Columns, Element, Reading
from fhir_sched.extensions import Extensions
from fhir_sched.outcome import FhirError, Issue
from fhir_sched.reference import Target, of_element
from fhir_sched.rendering import BUSINESS_IDENTIFIER

_SERVER_META = ("versionId", "lastUpdated")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a resource becomes: its columns (text format), among them `fhir` and `fhir_tokens`."""

    source: Source
    columns: Columns


def to_columns(resource: Resource, source: Source, document: dict[str, Any], base: str) -> Stored:
    """The columns of a valid resource.

    Raises FhirError 422 (all that is wrong at once) where a rule of scheduling forbids it: no patient, a reference to
    a slot or schedule that can't be ours, an unknown time zone.
    """
    reading = Reading(base, document)
    columns: Columns = {}
    issues: list[Issue] = []
    for element in source.elements:
        try:
            columns.update(element.read(document.get(element.name), reading))
        except FhirError as error:
            issues.extend(error.issues)
    if issues:
        raise FhirError.of(issues)
    kept = _kept(source, document, columns)
    found = _entries(resource, source, document, kept, base, columns)
    columns["fhir"] = dumps(kept) if kept else None
    columns["fhir_tokens"] = orjson.dumps(found) if found else None
    return Stored(source, columns)


def _kept(source: Source, document: dict[str, Any], columns: Columns) -> dict[str, Any]:
    elements = {element.name: element for element in source.elements}
    kept: dict[str, Any] = {}
    for name, value in document.items():
        if name in ("resourceType", "id"):
            continue
        rest = _rest(name, value, elements.get(name), columns)
        if rest is not None:
            kept[name] = rest
    return kept


def _rest(name: str, value: Any, element: Element | None, columns: Columns) -> Any:
    """What of an element's value the columns will not give back; None when they give all of it."""
    if name == "meta":
        return {key: item for key, item in value.items() if key not in _SERVER_META} or None
    if name == "identifier":
        return [item for item in value if item.get("system") != BUSINESS_IDENTIFIER] or None
    if element is None:
        return value
    shown = _shown(element, columns)
    if isinstance(element, Extensions):
        return _rest_of_extensions(element, value, shown or [])
    return None if _same(shown, value) else value


def _shown(element: Element, columns: Columns) -> Any:
    text = element.render(*(columns.get(column) for column in element.shown))
    return orjson.loads(b"{" + text[1:] + b"}").get(element.name) if text else None


def _same(shown: Any, value: Any) -> bool:
    """Equal as JSON: True is not 1 (Python thinks so)."""
    return shown == value and dumps(shown) == dumps(value) if not isinstance(value, dict | list) else shown == value


def _rest_of_extensions(element: Extensions, value: list[dict[str, Any]], shown: list[dict[str, Any]]) -> Any:
    """The foreign extensions, if laying ours behind them gives the client's order back; else all of them."""
    written = element.client_written(value)
    shown = [item for item in shown if item["url"] in element.verbatim_urls]
    foreign = [item for item in written if item not in shown]
    ours = [item for item in shown if item in written]
    return (foreign if foreign + ours == written else written) or None


def _entries(
    resource: Resource, source: Source, document: dict[str, Any], kept: dict[str, Any], base: str, columns: Columns
) -> list[list[str]]:
    """Side-table entries (parameter, system, value) of what the columns can't be searched for."""
    found: dict[tuple[str, str, str], None] = {}
    position = resource.sources.index(source)
    for param in resource.params:
        path = getattr(param, "path", ())
        if path and path[0] in kept:
            for value in _at(document if path[0] != "meta" else kept, path):
                for entry in _entry(resource, param, position, value, base, columns):
                    found[entry] = None
    return [list(entry) for entry in found]


def _at(document: Any, path: tuple[str, ...]) -> list[Any]:
    level = [document]
    for name in path:
        level = [item[name] for item in level if isinstance(item, dict) and name in item]
        level = [item for value in level for item in (value if isinstance(value, list) else [value])]
    return level


def _entry(
    resource: Resource, param: Param, position: int, value: Any, base: str, columns: Columns
) -> list[tuple[str, str, str]]:
    name = f"{resource.type}.{param.name}"
    match param:
        case TokenParam(kind="concept"):
            # an empty code for words alone: nothing finds it, but the element is not missing
            listed = value.get("coding", ())
            codings = [_coding(name, coding) for coding in listed if coding.get("code")] or [(name, "", "")]
            return codings + _texts(name, [value.get("text"), *(coding.get("display") for coding in listed)])
        case TokenParam(kind="coding"):
            return ([_coding(name, value)] if value.get("code") else []) + _texts(name, [value.get("display")])
        case TokenParam(kind="identifier"):
            said = [(name, value.get("system", ""), value["value"])] if value.get("value") else []
            return said + _texts(name, [value.get("type", {}).get("text")])
        case TokenParam(kind="contact"):
            return [(name, value.get("system", ""), value["value"])] if value.get("value") else []
        case TokenParam():
            return [(name, param.system, str(value))]
        case UriParam():
            return [(name, "", value)]
        case ReferenceParam():
            return _reference_entries(name, param, position, value, base, columns)
    return []


def _texts(name: str, texts: Sequence[str | None]) -> list[tuple[str, str, str]]:
    """Entries for `:text`, which compares without case and accents from the beginning."""
    return [(f"{name}:text", "", codec.plain(text)) for text in texts if text]


def _coding(name: str, coding: dict[str, Any]) -> tuple[str, str, str]:
    return (name, coding.get("system", ""), coding["code"])


def _reference_entries(
    name: str, param: ReferenceParam, position: int, value: Any, base: str, columns: Columns
) -> list[tuple[str, str, str]]:
    binding = param.bindings[position]
    entry = binding.entry if isinstance(binding, References) and binding.entry else name
    if entry != name:  # patient, practitioner, location: the entries of `actor` serve them
        return []
    found = of_element(value, base)
    entries = _identifier_entries(entry, value, found.type if found is not None else "")
    if found is None or found.url.startswith("identifier:"):
        return entries
    where = found.url or found.id
    if not isinstance(binding, References):
        return [*entries, (entry, found.type, where)]
    if binding.check:
        entries.append((entry, found.type, where))
    if not any(_carries(column, found, columns) for column in binding.columns):
        entries.append((f"{entry}+", found.type, where))
    return entries


def _identifier_entries(entry: str, value: Any, kind: str) -> list[tuple[str, str, str]]:
    """The identifier that a reference carries, for `:identifier` of any type and of this type."""
    identifier = value.get("identifier") if isinstance(value, dict) else None
    if not isinstance(identifier, dict) or not identifier.get("value"):
        return []
    said = identifier.get("system", ""), identifier["value"]
    return [(f"{entry}:identifier", *said), (f"{entry}:identifier:{kind}", *said)]


def _carries(column: ReferenceColumn, found: Target, columns: Columns) -> bool:
    """Whether the uuid column says this reference, so that a search of the column finds it."""
    return column.type == found.type and columns.get(column.column) == column_uuid(column, found).encode()


def column_uuid(column: ReferenceColumn, found: Target) -> str:
    """The UUID that the column has for a reference."""
    return role_uuid(found) if column.derived else found.uuid
