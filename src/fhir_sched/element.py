"""Elements: how one FHIR element and its columns turn into each other.

Each element renders its columns to a JSON member (bytes, comma first, `b""` when absent) and reads a FHIR value into
its columns. What rendering the columns would not give back is kept by `mapping`, so `read` may lose detail freely.
R4 8.x/12.x element tables. Knows nothing of SQL statements, HTTP or validation: values are already valid R4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_sched import codec
from fhir_sched.outcome import FhirError, Kind

EXTENSION_BASE = "http://fhir-sched.org/fhir/StructureDefinition/"
_ABSENT = b'{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]}'

Columns = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What an element may need to know while it reads: this server's FHIR base and the resource's other elements."""

    base: str
    resource: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plain:
    """How an element is written in the ordinary case, for a template that is compiled once (see `mapping`).

    `format` is the JSON with `%b` for each of `values`; these and the `guards`, which all must hold, are Python
    expressions over the columns' names as given; `names` are the constants that they use.
    """

    format: bytes
    values: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    names: tuple[tuple[str, Any], ...] = ()


def plain_instant(name: str, column: str) -> Plain:
    """An instant that is there, with the name of its element."""
    known, found = f"{name}_members", f"{name}_members[{column}]"
    return Plain(b"%b", (found,), (found,), ((known, codec.Instants(f',"{name}":"'.encode(), b'"')),))


@dataclass(frozen=True)
class Element:
    """One element: `shown` are the columns that `render` takes, in order; `written` those that `read` fills."""

    name: str
    shown: tuple[str, ...]

    @property
    def written(self) -> tuple[str, ...]:
        """Columns that a write sets."""
        return self.shown

    def render(self, *values: bytes | None) -> bytes:
        """The JSON member, for example `,"start":"2026-06-02T09:00:00Z"`."""
        raise NotImplementedError  # each kind of element below says how

    def plain(self, *columns: str) -> Plain:
        """The ordinary case of `render`: where nothing else is said, that the first column is NULL."""
        return Plain(b"", guards=(f"{columns[0]} is None",) if columns else ())

    def read(self, value: Any, reading: Reading) -> Columns:
        """The columns of a FHIR value (None: the element is absent)."""
        raise NotImplementedError  # each kind of element below says how


@dataclass(frozen=True)
class Code(Element):
    """A code in a text column; `names` gives the column's word for a code where it differs (FHIR -> column).

    Several codes may share a word: the first one is what the column alone comes back as.
    """

    codes: tuple[tuple[str, str], ...] = ()
    fallback: str = ""

    def plain(self, *columns: str) -> Plain:
        known = f"{self.name}_members"
        members = {word.encode(): f',"{self.name}":"{code}"'.encode() for code, word in reversed(self.codes)}
        return Plain(b"%b", (f"{known}[{columns[0]}]",), (f"{columns[0]} in {known}",), ((known, members),))

    def render(self, *values: bytes | None) -> bytes:
        word = (values[0] or b"").decode()
        for code, stored in self.codes:
            if stored == word:
                return f',"{self.name}":"{code}"'.encode()
        return f',"{self.name}":"{self.fallback}"'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        """Raises 422 for a code of R4 that this kind of row can't have, such as `booked` for a waitlist entry."""
        for code, word in self.codes:
            if code == value:
                return {self.shown[0]: word.encode()}
        allowed = ", ".join(code for code, _ in self.codes)
        where = f"{reading.resource.get('resourceType')}.{self.name}"
        raise FhirError(Kind.BUSINESS_RULE, f"{self.name} {value!r} is not possible here; it may be {allowed}", where)


@dataclass(frozen=True)
class Constant(Element):
    """An element that every row of the table has alike."""

    value: str = ""

    def plain(self, *columns: str) -> Plain:
        return Plain(f',"{self.name}":"{self.value}"'.encode())

    def render(self, *values: bytes | None) -> bytes:
        return f',"{self.name}":"{self.value}"'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        if value not in (None, self.value):
            raise FhirError(
                Kind.BUSINESS_RULE,
                f"{self.name} must be {self.value!r} here, not {value!r}",
                f"{reading.resource.get('resourceType')}.{self.name}",
            )
        return {}


@dataclass(frozen=True)
class Instant(Element):
    """An instant in a timestamptz column. `required`: a missing one is always shown as absent.

    Otherwise the second column says by its word whether it may be missing (`timeless`), and the third is the other end:
    R4 app-2 wants both or neither.
    """

    required: bool = False
    timeless: frozenset[str] = frozenset()

    def plain(self, *columns: str) -> Plain:
        return plain_instant(self.name, columns[0])

    def render(self, *values: bytes | None) -> bytes:
        text = codec.instant(values[0])
        if text is not None:
            return b',"' + self.name.encode() + b'":"' + text + b'"'
        if not self.required and (values[1] or b"").decode() in self.timeless and codec.instant(values[2]) is None:
            return b""
        return b',"_' + self.name.encode() + b'":' + _ABSENT

    @property
    def written(self) -> tuple[str, ...]:
        return self.shown[:1]

    def read(self, value: Any, reading: Reading) -> Columns:
        """Raises 422 where every row has a time and the value has just extensions."""
        if value is None and self.required:
            where = f"{reading.resource.get('resourceType')}.{self.name}"
            raise FhirError(Kind.BUSINESS_RULE, f"{self.name} needs a value here, not only extensions", where)
        return {self.shown[0]: codec.timestamptz(value)}


@dataclass(frozen=True)
class DateTime(Element):
    """`Appointment.created`: the row's own time, or the client's when it wrote one."""

    def plain(self, *columns: str) -> Plain:
        return plain_instant(self.name, columns[0])

    def render(self, *values: bytes | None) -> bytes:
        text = codec.instant(values[0])
        return b"" if text is None else b',"' + self.name.encode() + b'":"' + text + b'"'

    def read(self, value: Any, reading: Reading) -> Columns:
        """An absent value leaves the column to its default (on update: as it is), so it is not in the result."""
        covered = codec.interval(value) if isinstance(value, str) else None
        if covered is None:
            return {}
        exact = codec.timestamptz(value) if "T" in value else None
        return {self.shown[0]: exact or f"{covered.low.isoformat(sep=' ')}+00".encode()}


@dataclass(frozen=True)
class Horizon(Element):
    """`Schedule.planningHorizon`: kept as written; its ends go into columns for searching (NULL: open), with a flag.

    An end covers all of its precision: the column has the moment behind it. Dates are days in the schedule's own zone.
    """

    low: str = ""
    high: str = ""
    flag: str = ""

    @property
    def written(self) -> tuple[str, ...]:
        return (self.low, self.high, self.flag)

    def render(self, *values: bytes | None) -> bytes:
        return b""

    def read(self, value: Any, reading: Reading) -> Columns:
        period = value if isinstance(value, dict) else {}
        zone = codec.zone(_zone_of(reading.resource))
        ends = [codec.interval(period[name]) if name in period else None for name in ("start", "end")]
        start, end = (None if found is None else found.at(zone) for found in ends)
        return {
            self.low: None if start is None else start.low.isoformat(sep=" ").encode(),
            self.high: None if end is None else end.high.isoformat(sep=" ").encode(),
            self.flag: b"f" if value is None else b"t",
        }


def _zone_of(schedule: Mapping[str, Any]) -> str:
    url = EXTENSION_BASE + "schedule-timezone"
    found = (item.get("valueCode") for item in schedule.get("extension", ()) if item.get("url") == url)
    return next(found, None) or "UTC"


@dataclass(frozen=True)
class Text(Element):
    """A string in a text column."""

    def render(self, *values: bytes | None) -> bytes:
        if not values[0]:
            return b""
        return b',"' + self.name.encode() + b'":' + codec.json_text(codec.printable(values[0].decode()))

    def read(self, value: Any, reading: Reading) -> Columns:
        return {self.shown[0]: value.encode() if isinstance(value, str) else None}


def is_true(value: bytes | None) -> bool:
    """Whether a boolean column is true: `t` as PostgreSQL sends it, `true` where a statement cast it to text."""
    return value in (b"t", b"true")


@dataclass(frozen=True)
class Boolean(Element):
    """A boolean column that is never NULL; an absent element is `default`."""

    default: bool = True

    def plain(self, *columns: str) -> Plain:
        value = f"b'true' if {columns[0]} in (b't', b'true') else b'false'"
        return Plain(f',"{self.name}":%b'.encode(), (value,))

    def render(self, *values: bytes | None) -> bytes:
        return b',"' + self.name.encode() + (b'":true' if is_true(values[0]) else b'":false')

    def read(self, value: Any, reading: Reading) -> Columns:
        chosen = value if isinstance(value, bool) else self.default
        return {self.shown[0]: b"t" if chosen else b"f"}


@dataclass(frozen=True)
class Priority(Element):
    """`Appointment.priority` of a waitlist entry: 0 is undefined and not shown."""

    def render(self, *values: bytes | None) -> bytes:
        value = values[0] or b"0"
        return b"" if value == b"0" or value.startswith(b"-") else b',"' + self.name.encode() + b'":' + value

    def read(self, value: Any, reading: Reading) -> Columns:
        return {self.shown[0]: str(value).encode() if isinstance(value, int) else b"0"}
