"""The product's own extensions and the columns behind them.

Each part turns one column into its extension(s) and back; `Extensions` is the element that holds them all.
R4 2.4 (Extensibility); the extensions themselves are published in capability/. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any
from zoneinfo import available_timezones

import orjson

from fhir_sched.codec import instant
from fhir_sched.document import dumps
from fhir_sched.element import EXTENSION_BASE, Columns, Element, Plain, Reading, is_true
from fhir_sched.outcome import FhirError, Kind

MOST = 10_000
"""How many appointments a slot can have room for; the table has the same limit."""


@dataclass(frozen=True)
class Part:
    """One extension (by the last part of its URL) and its column.

    `server_set` parts are shown, never read. `value` is the FHIR name of the value element, `doc` says what it means.
    `names` is the type of the resources that a reference in it names: who may not read those is not shown the part.
    `codes` are all codes that it may have, with their meaning, where they are our own; `value_set` is the canonical URL
    of R4's value set where they are R4's.
    """

    name: str
    column: str
    value: str
    server_set: bool = False
    omit: bytes | None = None
    default: bytes | None = None
    doc: str = ""
    names: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    value_set: str = ""

    @property
    def url(self) -> str:
        """The canonical URL."""
        return EXTENSION_BASE + self.name

    @property
    def repeats(self) -> bool:
        """Whether a resource may have several of it."""
        return False

    @property
    def verbatim(self) -> bool:
        """Whether the database gives the column's text back as it was written."""
        return True

    def show(self, stored: bytes | None) -> list[dict[str, Any]]:
        """The extensions of a column's text."""
        if stored is None or stored == self.omit:
            return []
        shown = self.to_fhir(stored)
        return [] if shown is None else [{"url": self.url, self.value: shown}]

    def to_fhir(self, stored: bytes) -> Any:
        """The value; None where the text can't be one (a code has single spaces, and inside only)."""
        text = stored.decode()
        return (" ".join(text.split()) or None) if self.value == "valueCode" else text

    def read(self, found: list[dict[str, Any]], where: str) -> bytes | None:
        """The column's text for the extensions with this URL (none: the default). Raises 422 for what breaks a rule."""
        if not found:
            return self.default
        if len(found) > 1:
            raise FhirError(Kind.BUSINESS_RULE, f"{self.url} may be given once, not {len(found)} times", where)
        value = found[0].get(self.value)
        if value is None:
            raise FhirError(Kind.BUSINESS_RULE, f"{self.url} carries its value in {self.value}", where)
        return self.to_column(value, where)

    def to_column(self, value: Any, where: str) -> bytes:
        """The column's text for one value."""
        return str(value).encode()


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"Factory", "localtime", "posixrules"}


@dataclass(frozen=True)
class Zone(Part):
    """An IANA time zone."""

    def to_column(self, value: Any, where: str) -> bytes:
        if value not in _zones():
            raise FhirError(
                Kind.BUSINESS_RULE, f"{value!r} is not an IANA time zone; write one such as 'Europe/Berlin'", where
            )
        return str(value).encode()


@dataclass(frozen=True)
class Flag(Part):
    """A boolean that is shown only when true."""

    def to_fhir(self, stored: bytes) -> Any:
        return is_true(stored)

    def show(self, stored: bytes | None) -> list[dict[str, Any]]:
        return super().show(stored) if is_true(stored) else []

    def to_column(self, value: Any, where: str) -> bytes:
        return b"t" if value is True else b"f"


@dataclass(frozen=True)
class Moment(Part):
    """An instant that the server sets."""

    def to_fhir(self, stored: bytes) -> Any:
        shown = instant(stored)
        return None if shown is None else shown.decode()


@dataclass(frozen=True)
class Count(Part):
    """A whole number of at least one."""

    def to_fhir(self, stored: bytes) -> Any:
        return int(stored)

    def to_column(self, value: Any, where: str) -> bytes:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
            return str(value).encode()
        raise FhirError(Kind.BUSINESS_RULE, f"{self.url} is a whole number from 1 to {MOST}, not {value}", where)


@dataclass(frozen=True)
class JsonText(Part):
    """A JSON object written as a string; jsonb keeps its meaning, not its spaces and order."""

    @property
    def verbatim(self) -> bool:
        return False

    def to_column(self, value: Any, where: str) -> bytes:
        try:
            found = json.loads(value, parse_constant=_refuse)
            if isinstance(found, dict) and _is_storable(found):
                return str(value).encode()
        except (ValueError, RecursionError):
            pass
        raise FhirError(
            Kind.BUSINESS_RULE,
            f'{self.url} holds a JSON object as text, such as \'{{"days": ["mon"]}}\', '
            "without NUL and half surrogate pairs",
            where,
        )


def _is_storable(value: Any) -> bool:
    """Whether jsonb can hold the value: its texts know neither NUL nor half of a surrogate pair."""
    match value:
        case str():
            return "\x00" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
        case dict():
            return all(_is_storable(each) for pair in value.items() for each in pair)
        case list():
            return all(map(_is_storable, value))
    return True


@dataclass(frozen=True)
class Mentions(Part):
    """Resources that the server names: their rows' ids as a JSON array in the column, one extension for each."""

    prefix: str = ""

    @property
    def repeats(self) -> bool:
        return True

    def show(self, stored: bytes | None) -> list[dict[str, Any]]:
        ids = orjson.loads(stored) if stored else ()
        return [{"url": self.url, self.value: {"reference": f"{self.names}/{self.prefix}-{each}"}} for each in ids]


def _refuse(word: str) -> Any:
    raise ValueError(word)


KEPT_PARTS = (
    (
        "Appointment",
        Part(
            "override-reason",
            "",
            "valueString",
            doc="Why the clinic's rules of booking are set aside by the change that brings or changes this reason",
        ),
    ),
)
"""Extensions of our own without a column, by resource type: kept as they are written."""


@dataclass(frozen=True)
class Extensions(Element):
    """The `extension` list of a resource: our own parts, each with its column; others are kept by `mapping`."""

    parts: tuple[Part, ...] = ()

    def plain(self, *columns: str) -> Plain:
        """At most the first part is shown, and that one as a bare word."""
        first, *others = zip(self.parts, columns, strict=True)
        part, column = first
        guards = [f"({name} is None or {name} in (b'f', b'false', {each.omit!r}))" for each, name in others]
        if part.omit is not None or not part.value:
            return Plain(b"", guards=(*guards, f"{column} == {part.omit!r}" if part.omit else f"{column} is None"))
        shown = f',"{self.name}":[{{"url":"{part.url}","{part.value}":"%b"}}]'.encode()
        if not part.server_set and part.default is None:
            return Plain(b"", guards=(*guards, f"{column} is None"))
        return Plain(shown, (column,), (*guards, f"{column} is not None", f"{column}.isalnum()"))

    @property
    def written(self) -> tuple[str, ...]:
        return tuple(part.column for part in self.parts if not part.server_set)

    def render(self, *values: bytes | None) -> bytes:
        shown = [extension for part, value in zip(self.parts, values, strict=True) for extension in part.show(value)]
        return b',"extension":' + dumps(shown) if shown else b""

    def read(self, value: Any, reading: Reading) -> Columns:
        where = f"{reading.resource['resourceType']}.extension"
        given: list[dict[str, Any]] = [item for item in value or () if isinstance(item, dict)]
        return {
            part.column: part.read([item for item in given if item.get("url") == part.url], where)
            for part in self.parts
            if not part.server_set
        }

    @cached_property
    def verbatim_urls(self) -> frozenset[str]:
        """The URLs of the parts whose columns give back exactly what was written."""
        return frozenset(part.url for part in self.parts if part.verbatim)

    def client_written(self, extensions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The extensions without those that only the server sets."""
        server = {part.url for part in self.parts if part.server_set}
        return [extension for extension in extensions if extension.get("url") not in server]
