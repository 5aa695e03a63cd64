"""Elements: how one FHIR element and its columns turn into each other.

Each element renders its columns to a JSON member (bytes, comma first, `b""` when absent) and reads a FHIR value into
its columns. What rendering the columns would not give back is kept by `mapping`, so `read` may lose detail freely.
R4 8.x/12.x element tables. Knows nothing of SQL statements, HTTP or validation: values are already valid R4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_sched import codec, reference
from fhir_sched.document import dumps
from fhir_sched.outcome import FhirError, Kind

EXTENSION_BASE = "http://fhir-sched.org/fhir/StructureDefinition/"
APPOINTMENT_TYPE_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-0276"
APPOINTMENT_TYPES = frozenset({"CHECKUP", "EMERGENCY", "FOLLOWUP", "ROUTINE", "WALKIN"})
_ABSENT = b'{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]}'

Columns = dict[str, bytes | None]

INSTANTS = codec.Instants()
"""For all templates."""


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


def _plain_instant(name: str, column: str) -> Plain:
    found = f"instants[{column}]"
    return Plain(f',"{name}":"%b"'.encode(), (found,), (found,), (("instants", INSTANTS),))


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
        words = {word.encode(): code.encode() for code, word in reversed(self.codes)}
        known = f"{self.name}_codes"
        format_ = f',"{self.name}":"%b"'.encode()
        return Plain(format_, (f"{known}[{columns[0]}]",), (f"{columns[0]} in {known}",), ((known, words),))

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
        return _plain_instant(self.name, columns[0])

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
        return _plain_instant(self.name, columns[0])

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


@dataclass(frozen=True)
class Concept(Element):
    """A CodeableConcept in a text column that holds the first coding's code.

    A code of `known` comes back with `system`. `blank` is stored where the column may not be NULL.
    """

    system: str = ""
    known: frozenset[str] = frozenset()
    blank: str | None = None

    def plain(self, *columns: str) -> Plain:
        known = {code.encode(): self.render(code.encode()) for code in self.known}
        other = f',"{self.name}":{{"coding":[{{"code":"%b"}}]}}'.encode()
        name, column = f"{self.name}_known", columns[0]
        value = f"b'' if {column} is None else {name}[{column}] if {column} in {name} else {other!r} % {column}"
        return Plain(b"%b", (value,), (f"({column} is None or {column}.isalnum())",), ((name, known),))

    def render(self, *values: bytes | None) -> bytes:
        text = (values[0] or b"").decode()
        if not text.strip():
            return b""
        if not codec.is_code(text):
            return b',"' + self.name.encode() + b'":' + dumps({"text": codec.printable(text)})
        coding = {"system": self.system, "code": text} if text in self.known else {"code": text}
        return b',"' + self.name.encode() + b'":' + dumps({"coding": [coding]})

    def read(self, value: Any, reading: Reading) -> Columns:
        stored = first_code(value)
        if stored is None and self.blank is not None:
            stored = value.get("text", self.blank) if isinstance(value, dict) else self.blank
        return {self.shown[0]: None if stored is None else stored.encode()}


@dataclass(frozen=True)
class Words(Element):
    """A CodeableConcept (a list of one when `many`) in a text column for people: its text, else a display or code.

    `when` names the words of the second column that allow the element at all (R4 app-4).
    """

    many: bool = False
    when: frozenset[str] | None = None

    @property
    def written(self) -> tuple[str, ...]:
        return self.shown[:1]

    def render(self, *values: bytes | None) -> bytes:
        text = (values[0] or b"").decode()
        if not text.strip() or (self.when is not None and (values[1] or b"").decode() not in self.when):
            return b""
        concept = {"text": codec.printable(text)}
        return b',"' + self.name.encode() + b'":' + dumps([concept] if self.many else concept)

    def read(self, value: Any, reading: Reading) -> Columns:
        concept = value[0] if self.many and isinstance(value, list) else value
        return {self.shown[0]: None if not isinstance(concept, dict) else _words(concept)}


def _words(concept: dict[str, Any]) -> bytes | None:
    if concept.get("text"):
        return str(concept["text"]).encode()
    for coding in concept.get("coding", ()):
        if coding.get("display") or coding.get("code"):
            return str(coding.get("display") or coding["code"]).encode()
    return None


def first_code(concept: Any) -> str | None:
    """The code of the first coding that has one."""
    if not isinstance(concept, dict):
        return None
    return next((coding["code"] for coding in concept.get("coding", ()) if coding.get("code")), None)


@dataclass(frozen=True)
class ServiceTypes(Element):
    """`Schedule.serviceType` in a text[] column: each a code, or `system|code`; one concept for each code."""

    def render(self, *values: bytes | None) -> bytes:
        stored = [word for word in _listed(values[0]) if word and word.strip()]
        if not stored:
            return b""
        return b',"' + self.name.encode() + b'":' + dumps([_service(word) for word in stored])

    def read(self, value: Any, reading: Reading) -> Columns:
        codings = (coding for concept in value or () for coding in concept.get("coding", ()) if coding.get("code"))
        words = [
            f"{coding['system']}|{coding['code']}" if coding.get("system") else coding["code"] for coding in codings
        ]
        return {self.shown[0]: codec.text_array(words) if words else None}


def _listed(value: bytes | None) -> list[str]:
    """A text[] as a read selects it (JSON) or as `codec.text_array` writes it, whose quoting is JSON's too."""
    if not value:
        return []
    listed: list[str] = orjson.loads(b"[" + value[1:-1] + b"]" if value.startswith(b"{") else value)
    return listed


def _service(word: str) -> dict[str, Any]:
    system, _, code = word.rpartition("|")
    if not codec.is_code(code):
        return {"text": codec.printable(word)}
    return {"coding": [{"system": system, "code": code} if system else {"code": code}]}


def schedule_reference(schedule_id: bytes) -> str:
    """`Schedule/sch-<uuid>` of a column."""
    return f"Schedule/sch-{schedule_id.decode()}"


@dataclass(frozen=True)
class Hosted(Element):
    """One reference to a resource of our own (`type`, prefix of its ids) in a uuid column."""

    type: str = ""
    prefix: str = ""

    def plain(self, *columns: str) -> Plain:
        format_ = f',"{self.name}":{{"reference":"{self.type}/{self.prefix}-%b"}}'.encode()
        return Plain(format_, columns, (f"{columns[0]} is not None",))

    def render(self, *values: bytes | None) -> bytes:
        if values[0] is None:
            return b""
        return f',"{self.name}":{{"reference":"{self.type}/{self.prefix}-{values[0].decode()}"}}'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        where = f"{reading.resource['resourceType']}.{self.name}"
        return {self.shown[0]: hosted_uuid(value, self.type, self.prefix, reading.base, where).encode()}


@dataclass(frozen=True)
class HostedList(Element):
    """References to our own resources: the first in the uuid column that is shown, the others in a uuid[] column."""

    type: str = ""
    prefix: str = ""
    others: str = ""

    @property
    def written(self) -> tuple[str, ...]:
        return (self.shown[0], self.others)

    def plain(self, *columns: str) -> Plain:
        one = f',"{self.name}":[{{"reference":"{self.type}/{self.prefix}-%b"}}]'.encode()
        return Plain(b"%b", (f"b'' if {columns[0]} is None else {one!r} % {columns[0]}",))

    def render(self, *values: bytes | None) -> bytes:
        if values[0] is None:
            return b""
        return f',"{self.name}":[{{"reference":"{self.type}/{self.prefix}-{values[0].decode()}"}}]'.encode()

    def read(self, value: Any, reading: Reading) -> Columns:
        kind = reading.resource["resourceType"]
        found: dict[str, None] = {}
        for index, item in enumerate(value or ()):
            where = f"{kind}.{self.name}[{index}]"
            found[hosted_uuid(item, self.type, self.prefix, reading.base, where)] = None
        uuids = [uuid.encode() for uuid in found]
        others = b"{" + b",".join(uuids[1:]) + b"}" if len(uuids) > 1 else None
        return {self.shown[0]: uuids[0] if uuids else None, self.others: others}


def hosted_uuid(value: Any, kind: str, prefix: str, base: str, where: str) -> str:
    """The UUID behind a reference to a resource of our own.

    Raises 422 where it can't be one of ours (an unknown id, another server), 409 for an exception's Slot, which is
    never free.
    """
    identifier = value.get("identifier") if isinstance(value, dict) else None
    if isinstance(identifier, dict) and "reference" not in value and identifier.get("system") == "urn:fhir-sched:id":
        text = str(identifier.get("value", ""))
        found = reference.Target(kind, text.replace("_", "-", 1))
    else:
        found = reference.of_element(value, base) or reference.Target("", "", "#")
    name, _, tail = found.id.partition("-")
    if found.type == kind and not found.url and reference.is_uuid(tail):
        if name == prefix:
            return tail.lower()
        if (kind, name) == ("Slot", "exc"):
            raise FhirError(
                Kind.CONFLICT, f"Slot/{found.id} is a blocked time and can't be booked; choose a free Slot", where
            )
    said = value.get("reference", "this reference") if isinstance(value, dict) else "this reference"
    raise FhirError(
        Kind.BUSINESS_RULE,
        f"{said!r} is no {kind} of this server; a reference here looks like {kind}/{prefix}-<uuid>",
        where + ".reference",
    )
