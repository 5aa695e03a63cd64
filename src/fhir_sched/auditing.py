"""What an interaction leaves in the audit log: which interaction it was, whose data, and the statement that says so.

Law: the event of a change is made by the statement of the change itself, so that there is none of the two without the
other; whatever else is told afterwards (`journal`). R4 6.4, IHE BALP. Knows no connection, no HTTP message and no
resource but by its columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final
from urllib.parse import quote

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import Source
from fhir_sched.security.caller import Caller

ACTIONS: Final = {
    "create": "C", "read": "R", "vread": "R", "history-instance": "R", "history-type": "R", "history-system": "R",
    "update": "U", "patch": "U", "delete": "D",
}  # fmt: skip
"""The action of an interaction: C, R, U, D, or E for the others."""
CHANGES: Final = frozenset({"create", "update", "patch", "delete"})
MAX_QUERY: Final = 8192
"""Characters of a query that are kept."""
_READING: Final = frozenset({"GET", "HEAD"})
_BY_METHOD: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PATH: Final = "!$&'()*+,/:;=@~"
"""What may stand in a URL's path as it is (RFC 3986 3.3)."""
_PLAIN: Final = re.compile(r"[A-Za-z]*").fullmatch
_OPENING: Final = len(b'"reference":"')
_BARE: Final = re.compile(rb'"reference"\s*:\s*"([^"\\]*Patient/[^"\\]+)"')
_TOKEN: Final = re.compile(r"(?i)(access_token=)[^&]*")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}")
_PATIENT: Final = re.compile(r"(?:https?://[^\s\"]{1,1000}/)?Patient/[A-Za-z0-9\-.]{1,64}")


def interaction(method: str, path: Sequence[str], bundle: str = "transaction") -> str:
    """R4's code (restful-interaction) of a request by its path below the base; `bundle` is what a POST there was.

    >>> interaction("GET", ["Slot", "slt-1"]), interaction("POST", ["Slot", "_search"]), interaction("PUT", ["Slot"])
    ('read', 'search-type', 'update')
    """
    last = path[-1] if path else ""
    if last[:1] == "$":
        return "operation"
    if method in _READING:
        return _reading(path, last)
    if last == "_search":
        return "search-system" if len(path) == 1 else "search-type"
    if method == "POST" and not path:
        return bundle
    return _BY_METHOD.get(method, "operation")


def _reading(path: Sequence[str], last: str) -> str:
    match len(path):
        case 0:
            return "search-system"
        case 1:
            return {"_history": "history-system", "metadata": "capabilities"}.get(last, "search-type")
        case 2:
            if path[0] == ".well-known":
                return "capabilities"
            return "history-type" if last == "_history" else "read"
        case 3:
            return "history-instance" if last == "_history" else "search-type"
    return "vread" if path[2] == "_history" else "search-type"


def named(path: Sequence[str], location: str = "") -> tuple[str, str]:
    """The type and the reference (`Type/id`) of a path, "" where it has none; `location` has it for what was made."""
    if not path or _TYPE.fullmatch(path[0]) is None:
        return "", ""
    kind, given = path[0], path[1] if len(path) > 1 else ""
    if len(path) == 3 and _TYPE.fullmatch(path[2]):
        return path[2], ""  # a search in a compartment
    if not given and location:
        given = location.partition("/_history/")[0].rpartition("/")[2]
    return kind, f"{kind}/{given}" if _ID.fullmatch(given) else ""


def shown_patients(body: bytes) -> set[str]:
    """The patients that a resource or Bundle of ours refers to.

    >>> sorted(shown_patients(b'[{"reference":"Patient/1"},{"reference":"https://other/Patient/2"},{"display":"Patient/3"}]'))
    ['Patient/1', 'https://other/Patient/2']
    """
    # a single letter is sought many times faster, and a page of slots has none
    first = body.find(b"P")
    first = body.find(b"Patient/", first) if first >= 0 else first
    if first < 0:
        return set()
    # most resources name one patient
    end = body.find(b'"', first)
    if body[first - _OPENING : first] == b'"reference":"' and body.find(b"Patient/", end) < 0:
        return {body[first:end].decode()}
    found = set()
    parts = body.split(b"Patient/")
    for before, behind in pairwise(parts):
        head = b"" if before.endswith(b'"reference":"') else before.rpartition(b'"reference":"')[2]
        if b'"' not in head:
            found.add((head + b"Patient/" + behind.partition(b'"')[0]).decode())
    return found


def written_patients(body: bytes) -> set[str]:
    """The patients that a client's document refers to, however it is spaced."""
    return {found.decode("utf-8", "replace") for found in _BARE.findall(body)} if b"Patient/" in body else set()


def sought_patients(path: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The patients that a search asks about: by its parameters, or because it is in their compartment."""
    if len(path) > 2 and path[0] == "Patient":
        yield f"Patient/{path[1]}"
    for name, values in pairs:
        code = name.partition(":")[0].rpartition(".")[2]
        if code in ("patient", "actor"):
            for value in values.split(","):
                if "Patient/" in value:
                    yield value
                elif code == "patient" and value and "/" not in value and ":identifier" not in name:
                    yield f"Patient/{value}"


def patient(text: str, tenant: str) -> str | None:
    """The reference as the log has it: relative where it is below our own base, without version; None for none."""
    plain = text.partition("/_history/")[0]
    if ":" in plain:
        plain = plain.partition(f"/fhir/{tenant}/")[2] or plain
    return plain if _PATIENT.fullmatch(plain) else None


def query_of(path: Sequence[str], *parts: str) -> str | None:
    """What was searched for, as in a URL below the base; None where there is no query. A token in it is left out."""
    text = "&".join(part for part in parts if part)
    if not text:
        return None
    if "access_token=" in text.lower():
        text = _TOKEN.sub(r"\1…", text)
    where = "/".join(path)
    if not _PLAIN(where):
        where = quote(where, safe=_PATH)
    return f"{where}?{text}"[:MAX_QUERY]


# A change and its event in one statement

_COLUMNS: Final = (
    "interaction", "action", "status", "client", "subject", "issuer", "agent", "address", "server", "request_id",
)  # fmt: skip
_CASTS: Final = {"status": "integer"}


@dataclass(slots=True)
class Trail:
    """Who makes the changes of one request, for their events.

    `written`: the last change has left its own; `operated`: the whole operation has. `server` is the machine's name,
    `address` the client's; `tell` takes the events that no statement carries, as `Journal.note` does.
    """

    caller: Caller
    address: str
    server: str
    request_id: str
    tell: Callable[..., None]
    written: bool = False
    operated: bool = False

    def entry(self) -> Trail:
        """The trail of one entry of a Bundle, which has events of its own."""
        return replace(self, written=False, operated=False)

    def attached(self, fragment: Fragment, kind: str, source: Source, code: str, status: int) -> Fragment:
        """The statement of a change that also records its event, once for each patient of the row; the same rows.

        It must return `id`, `version` and, as far as the table has them, `fhir` and `patient_id`. Where it changes
        nothing there is no event.
        """
        self.written = True
        patient, joined = "null::text", ""
        if "patient_id" in source.columns:
            patient, joined = "p.patient", f"\n  left join lateral (\n    {_PATIENTS}\n  ) p on true"
        # a deletion is a version of its own
        version = "w.version + 1" if code == "delete" else "w.version"
        entity = f"'{kind}/{source.prefix}-' || w.id, {version}, {patient}"
        return self._recorded(fragment, kind, entity, joined, code, status)

    def operation(self, fragment: Fragment, kind: str, fhir_id: str) -> Fragment:
        """The statement that is all of an operation on one resource, with its event; none where it returns no row."""
        self.operated = True
        args = (*fragment.args, f"{kind}/{fhir_id}".encode())
        entity = f"${len(args)}::text, null, null"
        return self._recorded(Fragment(fragment.text, args, fragment.steady), kind, entity, "", "operation", 200)

    def _recorded(self, fragment: Fragment, kind: str, entity: str, joined: str, code: str, status: int) -> Fragment:
        caller = self.caller
        values: tuple[str | None, ...] = (
            code, ACTIONS.get(code, "E"), str(status), caller.client, caller.sub, caller.issuer, caller.user,
            self.address, self.server, self.request_id,
        )  # fmt: skip
        first = len(fragment.args) + 1
        text = _TEXTS.get((fragment.text, entity))
        if text is None:
            if len(_TEXTS) > _MOST_TEXTS:
                _TEXTS.clear()
            text = _TEXTS[fragment.text, entity] = _with_event(fragment.text, first, kind, entity, joined)
        given = (value.encode() if value else None for value in values)
        return Fragment(text, (*fragment.args, *given), fragment.steady)


_TEXTS: dict[tuple[str, str], str] = {}
_MOST_TEXTS: Final = 1000


def _with_event(text: str, first: int, kind: str, entity: str, joined: str) -> str:
    """The statement with the insert of its event; the event's own arguments begin at `first`."""
    places = ", ".join(f"${first + index}::{_CASTS.get(name, 'text')}" for index, name in enumerate(_COLUMNS))
    columns = f"tenant_id, type, entity, entity_version, patient, {', '.join(_COLUMNS)}"
    event = f"insert into audit_events ({columns})\n  select $1::uuid, '{kind}', {entity}, {places}"
    return (
        f"with written as (\n{text}\n),\naudited as (\n  {event}\n  from written w{joined}\n)\nselect *\nfrom written"
    )


# A patient column that no kept element explains holds the patient's own id.
_PATIENTS: Final = """select 'Patient/' || w.patient_id as patient
    where w.patient_id is not null and w.fhir -> 'participant' is null
    union all
    select distinct regexp_replace(
      split_part(k.participant #>> '{actor,reference}', '/_history/', 1),
      '^https?://.*/fhir/' || $1::uuid || '/', ''
    )
    from jsonb_array_elements(w.fhir -> 'participant') k (participant)
    where k.participant #>> '{actor,reference}' ~ '(^|/)Patient/'"""
