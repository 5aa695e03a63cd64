"""Row -> resource: what the columns say is rendered from them, and the kept elements are laid over that. R4 2.6 (JSON).

The way back is `mapping`. Knows nothing of SQL statements, connections or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import orjson

from fhir_sched import codec
from fhir_sched.definition import Resource, Source
from fhir_sched.document import dumps
from fhir_sched.element import Plain, plain_instant

BUSINESS_IDENTIFIER = "urn:fhir-sched:id"
_INT64_DIGITS = 18
"""A longer number is a decimal, whatever it looks like: orjson writes integers of 64 bits."""

Row = Sequence[bytes | None]
Template = Callable[[Row], bytes | None]
Writer = Callable[[Row], bytes]
Entries = Callable[[Sequence[Row], bytes, bytes, Writer], list[bytes]]


def compiled(resource: Resource, source: Source) -> tuple[Template, Entries]:
    """A function that writes an ordinary row in one step, and gives None for any other row; one for many rows.

    The second writes each row as an entry of a Bundle: what begins a fullUrl, the id, the resource, and an end; its
    last argument writes the rows that are not ordinary. It gives the pieces of all of them, to be joined.
    Both are put together from what the elements say of their ordinary case (`Element.plain`), so the table stays the
    only definition; a test holds their bytes against those of the elements one by one.
    """
    name = {column: f"c{place}" for place, column in enumerate(source.columns)}
    updated = plain_instant("lastUpdated", "c2")
    head = Plain(
        f'{{"resourceType":"{resource.type}","id":"{source.prefix}-%b","meta":{{"versionId":"%b"%b}}'
        f"{_identifier(source)}".encode(),
        ("c0", "c1", *updated.values, *(["c0"] if source.identified else [])),
        ("c3 is None", *updated.guards),
        updated.names,
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
        fixed=", ".join(f"{each}={each}" for each in (*fixed, *constants)),
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
    for row in rows:
        if len(row) != {width}: row = row[:{width}]
        {columns} = row
        if {guards}:
            found += ({entry})
        else:
            found += (head, c0, b'","resource":', other(row), tail)
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
    """The pieces of `to_json` of each row between `head`, its UUID and `","resource":` in front and `tail` behind."""
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
