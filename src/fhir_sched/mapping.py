"""Row <-> resource. What the columns say is rendered from them; everything else of a resource is kept beside them.

A write reads the columns out of the resource, renders them again, and keeps what did not come back (`fhir`): so
nothing can be lost, whatever an element's codec forgets. A read renders the columns and lays the kept elements over
them. R4 2.6 (JSON). Knows nothing of SQL statements, connections or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import orjson

from fhir_sched import codec
from fhir_sched.actors import role_uuid
from fhir_sched.definition import (
    Param,
    ReferenceColumn,
    ReferenceParam,
    References,
    Resource,
    Source,
    TokenParam,
    UriParam,
)
from fhir_sched.document import dumps
from fhir_sched.element import INSTANTS, Columns, Element, Plain, Reading
from fhir_sched.extensions import Extensions
from fhir_sched.outcome import FhirError, Issue
from fhir_sched.reference import Target, of_element

BUSINESS_IDENTIFIER = "urn:fhir-sched:id"
_INT64_DIGITS = 18
"""A longer number is a decimal, whatever it looks like: orjson writes integers of 64 bits."""
_SERVER_META = ("versionId", "lastUpdated")


Row = Sequence[bytes | None]
Template = Callable[[Row], bytes | None]
Writer = Callable[[Row], bytes]
Entries = Callable[[Sequence[Row], bytes, bytes, Writer], list[bytes]]


def compiled(resource: Resource, source: Source) -> tuple[Template, Entries]:
    """A function that writes an ordinary row in one step, and gives None for any other row; one for many rows.

    The second writes each row as an entry of a Bundle: what begins a fullUrl, the id, the resource, and an end; its
    last argument writes the rows that are not ordinary.
    Both are put together from what the elements say of their ordinary case (`Element.plain`), so the table stays the
    only definition; a test holds their bytes against those of the elements one by one.
    """
    name = {column: f"c{place}" for place, column in enumerate(source.columns)}
    head = Plain(
        f'{{"resourceType":"{resource.type}","id":"{source.prefix}-%b","meta":{{"versionId":"%b",'
        f'"lastUpdated":"%b"}}{_identifier(source)}'.encode(),
        ("c0", "c1", "instants[c2]", *(["c0"] if source.identified else [])),
        ("c3 is None", "instants[c2]"),
        (("instants", INSTANTS),),
    )
    parts = [head, *(each.plain(*(name[column] for column in each.shown)) for each in source.elements)]
    constants: dict[str, Any] = {constant: value for part in parts for constant, value in part.names}
    guards = list(dict.fromkeys(guard for part in parts for guard in part.guards))
    values = [value for part in parts for value in part.values]
    # what is asked by a guard and shown is looked up once
    both = {value: f"v{number}" for number, value in enumerate(dict.fromkeys(values)) if value in guards}
    values = [both.get(value, value) for value in values]
    asked = " and ".join(f"({both[guard]} := {guard})" if guard in both else guard for guard in guards)
    whole = b"".join(part.format for part in parts) + b"}"
    fixed: dict[str, bytes] = {}
    resource_items = _interleaved(whole, values, fixed, "r")
    entry_items = _interleaved(b'%b%b","resource":' + whole + b"%b", ["head", "c0", *values, "tail"], fixed, "e")
    text = _COMPILED.format(
        width=len(name),
        columns=", ".join(name.values()),
        guards=asked,
        resource=resource_items,
        entry=entry_items,
        # As defaults they are local names, found faster than global ones. For one row, to fill them in takes longer.
        fixed=", ".join(f"{each}={each}" for each in (*fixed, *constants, "join")),
    )
    constants |= {**fixed, "join": b"".join}
    exec(text, constants)  # noqa: S102 - made of our own declarations, once
    return constants["template"], constants["entries"]


# A union's rows and those of a history end in what other sources or the order need: they are cut.
_COMPILED = """
def template(row):
    if len(row) != {width}: row = row[:{width}]
    {columns} = row
    return join(({resource})) if {guards} else None

def entries(rows, head, tail, other, *, {fixed}):
    found = []
    add = found.append
    for row in rows:
        if len(row) != {width}: row = row[:{width}]
        {columns} = row
        if {guards}:
            add(join(({entry})))
        else:
            add(b'%b%b","resource":%b%b' % (head, c0, other(row), tail))
    return found
"""


def _interleaved(form: bytes, values: Sequence[str], fixed: dict[str, bytes], letter: str) -> str:
    """The parts of a format with `%b` (which go to `fixed`) and the values between them, as the items of a tuple.

    To join them takes two thirds of the time of formatting.
    """
    items = []
    for number, (part, value) in enumerate(zip_longest(form.split(b"%b"), values)):
        if part:
            items.append(f"{letter}{number}")
            fixed[items[-1]] = part
        if value is not None:
            items.append(value)
    return ", ".join(items)


def _identifier(source: Source) -> str:
    """Our own identifier with a place for the UUID, where the resource shows one."""
    said = f',"identifier":[{{"system":"{BUSINESS_IDENTIFIER}","value":"{source.prefix}_%b"}}]'
    return said if source.identified else ""


class Renderer:
    """A source's elements with the places of their columns in a row, worked out once."""

    def __init__(self, resource: Resource, source: Source) -> None:
        place = {column: index for index, column in enumerate(source.columns)}
        prefix = source.prefix.encode()
        self.template, self.entries = compiled(resource, source)
        self.head = (
            b'{"resourceType":"%b","id":"%b-%%b","meta":{"versionId":"%%b","lastUpdated":"%%b"}'
            % (resource.type.encode(), prefix)
        ) + _identifier(source).encode()
        self.identified = source.identified
        self.elements = tuple((each.render, tuple(place[column] for column in each.shown)) for each in source.elements)

    def __call__(self, row: Row) -> bytes:
        named = (row[0],) if self.identified else ()
        parts = [self.head % (row[0], row[1], codec.instant(row[2]) or b"1970-01-01T00:00:00Z", *named)]
        parts += [render(*[row[index] for index in places]) for render, places in self.elements]
        return b"".join(parts) + b"}"


_RENDERERS: dict[tuple[str, str], Renderer] = {}


def _renderer(resource: Resource, source: Source) -> Renderer:
    found = _RENDERERS.get((resource.type, source.prefix))
    if found is None:
        found = _RENDERERS[resource.type, source.prefix] = Renderer(resource, source)
    return found


def to_json(resource: Resource, source: Source, row: Row) -> bytes:
    """The resource of a row as JSON; the row begins with the source's `columns` in PostgreSQL's text format."""
    renderer = _renderer(resource, source)
    return renderer.template(row) or _out_of_the_ordinary(renderer, row)


def entries(resource: Resource, source: Source, rows: Sequence[Row], head: bytes, tail: bytes) -> list[bytes]:
    """`to_json` of each row between `head`, its UUID and `","resource":` in front and `tail` behind."""
    renderer = _renderer(resource, source)
    return renderer.entries(rows, head, tail, lambda row: _out_of_the_ordinary(renderer, row))


def _out_of_the_ordinary(renderer: Renderer, row: Row) -> bytes:
    columns_json = renderer(row)
    if row[3] is None:
        return columns_json
    return dumps(overlay(orjson.loads(columns_json), json.loads(row[3], parse_float=_exact, parse_int=_whole)))


def to_resource(resource: Resource, source: Source, row: Row) -> dict[str, Any]:
    """The same as `to_json`, as a document (decimals exact)."""
    shown: dict[str, Any] = json.loads(to_json(resource, source, row), parse_float=Decimal, parse_int=_number)
    return shown


def _exact(digits: str) -> orjson.Fragment:
    return orjson.Fragment(digits)


def _whole(digits: str) -> int | orjson.Fragment:
    return int(digits) if len(digits) <= _INT64_DIGITS else _exact(digits)


def _number(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INT64_DIGITS else Decimal(digits)


def overlay(shown: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The kept elements over those that the columns show.

    Kept identifiers come before our own; our extensions join the kept ones unless those have the URL already.
    """
    result = {**shown, **kept}
    if "meta" in kept:
        result["meta"] = {**kept["meta"], **shown["meta"]}
    if "identifier" in kept:
        result["identifier"] = [*kept["identifier"], *shown["identifier"]]
    if "extension" in kept and "extension" in shown:
        urls = {extension.get("url") for extension in kept["extension"]}
        result["extension"] = [*kept["extension"], *(item for item in shown["extension"] if item["url"] not in urls)]
    for name in ("start", "end"):
        if f"_{name}" in shown and (name in kept or f"_{name}" in kept):
            result.pop(f"_{name}") if f"_{name}" not in kept else None
    return result


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
