"""One value, column <-> FHIR: instants, codes, JSON text. Columns travel in PostgreSQL's text format, as bytes.

R4 2.24 (Datatypes). The session speaks ISO dates in UTC, so `2026-06-02 09:00:00+00` is what a timestamptz looks like.
Knows nothing of resources or tables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

_REMEMBERED = 8192
_CANONICAL_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(?:\.\d{0,5}[1-9])?Z", re.ASCII)
_PARTIAL = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
    r"(?P<offset>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_WHOLE_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\dZ", re.ASCII)
_CODE = re.compile(r"[^\s]+(?: [^\s]+)*")


def json_text(value: str) -> bytes:
    """A JSON string, quotes included."""
    return orjson.dumps(value)


def quoted(value: bytes) -> bytes:
    """A column's text as a JSON string. Codes and UUIDs need no escape; anything else is escaped by orjson."""
    if value.isalnum():
        return b'"' + value + b'"'
    return orjson.dumps(value.decode())


def instant(value: bytes | None) -> bytes | None:
    """A timestamptz column as a FHIR instant; None for NULL, infinity and years that FHIR can't write.

    >>> instant(b"2026-06-02 09:00:00.5+00")
    b'2026-06-02T09:00:00.5Z'
    """
    if value is None or value[10:11] != b" " or value[-3:] != b"+00":
        return None
    return value[:10] + b"T" + value[11:-3] + b"Z"


class Instants(dict[bytes | None, bytes | None]):
    """`instant` of each key between two texts, remembered, a few thousand at most; None where there is none.

    The rows of a page share most of their times, and asking costs less than cutting.
    """

    def __init__(self, before: bytes, behind: bytes) -> None:
        super().__init__()
        self._before, self._behind = before, behind

    def __missing__(self, key: bytes | None) -> bytes | None:
        if len(self) >= _REMEMBERED:
            self.clear()
        text = instant(key)
        found = self[key] = None if text is None else b"%b%b%b" % (self._before, text, self._behind)
        return found


def timestamptz(value: Any) -> bytes | None:
    """A FHIR instant for a timestamptz column: as PostgreSQL prints it if it is in UTC, else as the client wrote it."""
    if not isinstance(value, str):
        return None
    if _CANONICAL_INSTANT.fullmatch(value):
        return f"{value[:10]} {value[11:-1]}+00".encode()
    return value.encode()


def plain(text: str) -> str:
    """The text as string searches compare it (R4 3.1.1.4.8): no case, no accents, at most 200 characters.

    >>> plain("Café VISIT")
    'cafe visit'
    """
    decomposed = unicodedata.normalize("NFKD", text[:200])
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold()


def printable(value: str) -> str:
    """The text with a mark in place of each control character, which another program may store and FHIR forbids."""
    return _CONTROL.sub("\ufffd", value)


def is_code(value: str) -> bool:
    """Whether the text has the form of a FHIR code."""
    return _CODE.fullmatch(value) is not None


def text_array(values: Iterable[str]) -> bytes:
    """An array literal of any texts.

    >>> text_array(["a", 'b "c"'])
    b'{"a","b \\\\"c\\\\""}'
    """
    escaped = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return ("{" + ",".join(escaped) + "}").encode()


def zone(name: str) -> ZoneInfo:
    """The time zone of that name, UTC for one that is not known."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


class Interval:
    """The time that a date of some precision covers: `[low, high)`.

    `local` is True when the text had no offset: low and high are then naive, to be read in some zone; else aware UTC.
    """

    __slots__ = ("high", "local", "low")

    def __init__(self, low: datetime, high: datetime, local: bool) -> None:
        self.low, self.high, self.local = low, high, local

    def at(self, zone: ZoneInfo) -> Interval:
        """The same interval as instants, a local one read in the zone."""
        if not self.local:
            return self
        return Interval(_in_utc(self.low, zone), _in_utc(self.high, zone), False)


def _in_utc(local: datetime, zone: ZoneInfo) -> datetime:
    """The instant of a local time; the first or last one that there is where UTC is in another year than 1 to 9999."""
    try:
        return local.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if local.year == 1 else datetime.max.replace(tzinfo=UTC)


def interval(text: str) -> Interval | None:
    """The interval of a FHIR date, dateTime, instant or search date (minutes may lack seconds); None if it is none.

    A leap second is the first second of the next minute, and a fraction is rounded to microseconds, as PostgreSQL
    stores them. What would end after the year 9999 ends with it; None where it begins outside of the years 1 to 9999.

    >>> interval("2026-02").high
    datetime.datetime(2026, 3, 1, 0, 0)
    """
    if _WHOLE_SECOND.fullmatch(text):
        return _second(text)
    found = _PARTIAL.fullmatch(text)
    if found is None:
        return None
    part = found.groupdict()
    try:
        year, month, day, hour, minute, second = (int(part[name] or first) for name, first in _FIRST)
        leap = second == _LEAP
        low = datetime(year, month, day, hour, minute, second - leap)  # noqa: DTZ001 - naive until its zone is known
        offset = _offset(part["offset"] or "Z")
        low += timedelta(seconds=int(leap), microseconds=round(float(f"0.{part['fraction'] or 0}") * 1e6)) - offset
        high = _high(low, offset, part)
        if part["offset"] is None:
            return Interval(low, high, local=True)
        return Interval(low.replace(tzinfo=UTC), high.replace(tzinfo=UTC), local=False)
    except (ValueError, OverflowError):
        return None


def _second(text: str) -> Interval | None:
    """The second of an instant in UTC, which is what most dates are."""
    try:
        low = datetime.fromisoformat(text)
        return Interval(low, low + _ONE_SECOND, local=False)
    except ValueError:
        return None
    except OverflowError:
        return Interval(low, datetime.max.replace(tzinfo=UTC), local=False)


_ONE_SECOND = timedelta(seconds=1)
_LEAP = 60
_FIRST = (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))


def _high(low: datetime, offset: timedelta, part: dict[str, str | None]) -> datetime:
    """The end of the interval from `low`, both in UTC; months and years are those of the clock that the date is of."""
    try:
        return _end(low + offset, part) - offset
    except (ValueError, OverflowError):
        return datetime.max  # noqa: DTZ901 - naive until its zone is known


def _end(low: datetime, part: dict[str, str | None]) -> datetime:
    if part["month"] is None:
        return low.replace(year=low.year + 1)
    if part["day"] is None:
        return (low + timedelta(days=31)).replace(day=1)
    if part["hour"] is None:
        return low + timedelta(days=1)
    if part["second"] is None:
        return low + timedelta(minutes=1)
    if part["fraction"] is None:
        return low + timedelta(seconds=1)
    return low + timedelta(microseconds=max(1, 10 ** (6 - len(part["fraction"])) if len(part["fraction"]) < 6 else 1))


def _offset(text: str) -> timedelta:
    if text == "Z":
        return timedelta()
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 14 or minutes > 59:
        raise ValueError(text)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if text[0] == "-" else offset
