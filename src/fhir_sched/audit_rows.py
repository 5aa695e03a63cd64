"""Notes of interactions -> one insert of their rows in `audit_events`. R4 6.4, IHE BALP.

What a note means is worked out at once: while what it is about is still in the processor's caches that takes a fifth
of the time it takes a second later, and nothing of the request has to be kept until then. What many rows of a batch
have alike (the interaction, who asked, from where) is sent once. Pure: no connection, no I/O.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from fhir_sched import auditing
from fhir_sched.db.fragment import Fragment
from fhir_sched.outcome import FhirError
from fhir_sched.search.values import form

if TYPE_CHECKING:
    from fhir_sched.security.caller import Caller

Note: TypeAlias = (
    "tuple[str, int, str, Sequence[str], str, bytes, bytes, int, Sequence[tuple[bytes, bytes]], set[str], "
    "Caller | None, bytes, str]"
)
"""Tenant, time (ns since 1970), method, path (the tenant first), what was posted to the base, query, further criteria,
status, headers of the answer, patients, caller, request id, address."""

NULL: Final = "NULL"
_URL: Final = "!#$%&'()*+,/:;=?@[]~"
_UUID_REFERENCE: Final = len("Patient/") + 36
# Only what says so asks about a patient; what is percent-encoded may say anything.
_MAY_ASK_ABOUT_PATIENTS: Final = re.compile(rb"(?i)patient|%").search

_INSERT: Final = """
insert into audit_events (
    tenant_id, id, recorded_at, server, interaction, action, type, status, client, subject, issuer, agent, address,
    entity, entity_version, patient, query, request_id
)
select $1::uuid, ($2 || lpad(to_hex(e.n), 5, '0'))::uuid, to_timestamp(e.at::float8 / 1e9::float8), $3,
       s.interaction, s.action, s.type, s.status, s.client, s.subject, s.issuer, s.agent, s.address,
       e.entity, e.entity_version, e.patient, e.query, e.request_id
from unnest(
    $4::bigint[], $5::bigint[], $6::text[], $7::integer[], $8::text[], $9::text[], $10::text[]
) with ordinality e (at, shape, entity, entity_version, patient, query, request_id, n)
join unnest(
    $11::text[], $12::text[], $13::text[], $14::integer[], $15::text[], $16::text[], $17::text[], $18::text[],
    $19::text[]
) with ordinality s (interaction, action, type, status, client, subject, issuer, agent, address, n) on s.n = e.shape
on conflict (tenant_id, id) do nothing"""
"""A batch that is sent again, because nobody knows what became of it, adds nothing."""


class Batch:
    """The rows of one `tenant`, as they gather; `number` is how many there are."""

    def __init__(self, tenant: str, server: str) -> None:
        self.tenant, self._server = tenant, server
        self._rows: list[tuple[str, ...]] = []
        self._shapes: dict[tuple[str, str, int, int, str], str] = {}
        self._alike: list[tuple[str, ...]] = []
        self._usual: dict[tuple[str, str, int, str], str] = {}
        # as long as they are here, nobody else has their `id`
        self._callers: list[Caller | None] = []
        self._made: Fragment | None = None

    @property
    def number(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def add(self, note: Note) -> int:
        """Add the rows of one note, and how many they are: one for each patient, one if there is none."""
        return self._add_usual(note) or self._add_any(note)

    def _add_usual(self, note: Note) -> int:
        """A read or a search as most are, in one step; 0 for any other. It leaves what the general way would."""
        _, at, method, segments, _, query, criteria, status, headers, shown, caller, request_id, address = note
        if status != 200 or method != "GET" or criteria:
            return 0
        if len(segments) == 3 and not query and segments[2][:1] not in "_$":
            _, kind, fhir_id = segments
            code, entity, version, said = "read", f"{kind}/{fhir_id}", _version(headers), NULL
        elif len(segments) == 2 and query and _names_nobody(query, caller):
            _, kind = segments
            code, entity, version, said = "search-type", NULL, NULL, quoted(auditing.query_of([kind], _text(query)))
        else:
            return 0
        shape = self._usual.get((code, kind, id(caller), address))
        if shape is None:
            if auditing.named([kind])[0] == "":
                return 0
            shape = self._usual[code, kind, id(caller), address] = self._shape(code, kind, 200, caller, address)
        patients = self._patients(shown) if shown else (NULL,)
        asked = request_id.decode("ascii")
        self._rows += [(str(at), shape, entity, version, patient, said, asked) for patient in patients]
        return len(patients)

    def _patients(self, shown: set[str]) -> Sequence[str]:
        if len(shown) == 1:
            (text,) = shown
            if len(text) == _UUID_REFERENCE and text.startswith("Patient/"):
                return (quoted(text),)
        return sorted({quoted(found) for text in shown if (found := auditing.patient(text, self.tenant))}) or (NULL,)

    def _add_any(self, note: Note) -> int:
        _, at, method, segments, bundle, query, criteria, status, headers, shown, caller, request_id, address = note
        path = segments[1:]
        kind, entity = auditing.named(path, _location(headers))
        code = auditing.interaction(method, path, bundle)
        said = auditing.query_of(path, _text(query), _text(criteria)) if query or criteria else None
        patients = {found for text in shown if (found := auditing.patient(text, self.tenant))} if shown else set()
        if code.startswith("search") or criteria:
            patients |= _sought(self.tenant, path, (query, criteria), caller)
        shape = self._shape(code, kind, status, caller, address)
        end = (quoted(said), request_id.decode("ascii") or NULL)
        for patient in sorted(patients) or (None,):
            self._rows.append((str(at), shape, entity or NULL, _version(headers), quoted(patient), *end))
        return len(patients) or 1

    def _shape(self, code: str, kind: str, status: int, caller: Caller | None, address: str) -> str:
        """The place of what rows have alike."""
        key = (code, kind, status, id(caller), address)
        known = self._shapes.get(key)
        if known is None:
            agent = ("", "", "", "") if caller is None else (caller.client, caller.sub, caller.issuer, caller.user)
            action = auditing.ACTIONS.get(code, "E")
            self._callers.append(caller)
            self._alike.append((code, action, kind or NULL, str(status), *map(quoted, (*agent, address))))
            known = self._shapes[key] = str(len(self._alike))
        return known

    def fragment(self) -> Fragment:
        """The insert of all rows, the same each time; their ids are UUIDs of version 7 (RFC 9562), which stand together
        in the index."""
        if self._made is None:
            self._made = self._insert()
        return self._made

    def _insert(self) -> Fragment:
        noise = os.urandom(7).hex()
        begin = f"{int(time.time() * 1000):012x}7{noise[:3]}8{noise[3:13]}"
        arrays = [*zip(*self._rows, strict=True), *zip(*self._alike, strict=True)]
        listed = (("{" + ",".join(column) + "}").encode("utf-8", "replace") for column in arrays)
        return Fragment(_INSERT, (self.tenant.encode(), begin.encode(), self._server.encode(), *listed))


def _sought(tenant: str, path: Sequence[str], encoded: Sequence[bytes], caller: Caller | None) -> set[str]:
    """The patients that were asked about, and the one to whom the caller is limited."""
    asked = [caller.patient] if caller is not None and caller.patient else []
    pairs: list[tuple[str, str]] = []
    if any(_MAY_ASK_ABOUT_PATIENTS(part) for part in encoded):
        with suppress(FhirError):
            pairs = [pair for part in encoded for pair in form(_text(part))]
    if pairs or path[:1] == ["Patient"]:
        asked += auditing.sought_patients(path, pairs)
    return {found for text in asked if (found := auditing.patient(text, tenant))}


def _names_nobody(query: bytes, caller: Caller | None) -> bool:
    """Whether a query asks about no patient, and its caller is limited to none."""
    return _MAY_ASK_ABOUT_PATIENTS(query) is None and (caller is None or not caller.patient)


def _location(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Where what was made is, "" where nothing was."""
    for name, value in headers:
        if name == b"location":
            return value.decode("latin-1")
    return ""


def _version(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The version that the ETag names; it can't be a version where it is no number."""
    for name, value in headers:
        if name == b"etag":
            digits = value[3:-1]
            return digits.decode("ascii") if digits.isdigit() and len(digits) < 10 else NULL
    return NULL


def _text(encoded: bytes) -> str:
    """The query as a URL has it: what may not stand in one is percent-encoded."""
    text = encoded.decode("latin-1")
    return text if text.isascii() and text.isprintable() else quote(encoded, safe=_URL)


def quoted(text: str | None) -> str:
    """An element of PostgreSQL's array literal; NULL for nothing.

    >>> quoted('a "b"'), quoted("")
    ('"a \\\\\\\\"b\\\\\\\\""', 'NULL')
    """
    if not text:
        return NULL
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
