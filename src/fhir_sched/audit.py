"""The compact columns of `audit_events` -> the elements of an AuditEvent. IHE BALP 1.1 (Basic Audit), R4 6.4.

Law: what the table holds in a word is written out here and nowhere else, so that a row costs little while it is made.
An AuditEvent is never read from a client, so nothing here reads. Knows neither SQL nor who writes the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fhir_sched.document import dumps
from fhir_sched.element import Columns, Element, Reading

INTERACTION_SYSTEM: Final = "http://hl7.org/fhir/restful-interaction"
OUTCOMES: Final = frozenset({"0", "4", "8", "12"})
_EVENT_TYPE: Final = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_ENTITY_TYPE: Final = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ENTITY_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
_BALP_ENTITY: Final = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
_SERVER: Final = "fhir-sched"

_GENERAL: Final = {
    "search-type": "search", "search-system": "search", "vread": "read",
    "history-instance": "history", "history-type": "history", "history-system": "history",
}  # fmt: skip
"""Interactions of which R4 has a general code as well, by which BALP knows them."""


@dataclass(frozen=True)
class Written(Element, ABC):
    """A part of an AuditEvent: rendered from columns, never read."""

    @abstractmethod
    def said(self, *texts: str) -> Any:
        """The value of the element; None where there is none. A column that is NULL is ""."""

    def render(self, *values: bytes | None) -> bytes:
        value = self.said(*((cell or b"").decode() for cell in values))
        return b"" if value is None else b',"%b":%b' % (self.name.encode(), dumps(value))

    def read(self, value: Any, reading: Reading) -> Columns:
        """Nothing: what a client says about itself is not believed."""
        return {}


@dataclass(frozen=True)
class Kind(Written):
    """`type`: always a RESTful operation."""

    def said(self, *texts: str) -> Any:
        return {"system": _EVENT_TYPE, "code": "rest", "display": "Restful Operation"}


@dataclass(frozen=True)
class Interaction(Written):
    """`subtype`: R4's code of the interaction, and the general one where R4 has both."""

    def said(self, *texts: str) -> Any:
        codes = [texts[0], *([_GENERAL[texts[0]]] if texts[0] in _GENERAL else [])]
        return [{"system": INTERACTION_SYSTEM, "code": code, "display": code} for code in codes]


@dataclass(frozen=True)
class Word(Written):
    """A code that the column holds as it is."""

    def said(self, *texts: str) -> Any:
        return texts[0] or None


@dataclass(frozen=True)
class Outcome(Written):
    """`outcomeDesc`: the HTTP status of what was not done."""

    def said(self, *texts: str) -> Any:
        status = int(texts[0])
        known = {each.value: each.phrase for each in HTTPStatus}
        return f"{status} {known.get(status, '')}".strip() if status >= HTTPStatus.BAD_REQUEST else None


@dataclass(frozen=True)
class Agents(Written):
    """`agent`: the client, this server and, where a token names one, the user.

    Columns: action, client, subject, issuer, agent, address, server. For a read the data's way gives the roles, for
    everything else the request's (BALP).
    """

    def said(self, *texts: str) -> Any:
        action, client, subject, issuer, agent, address, server = texts
        ours, theirs = ("110153", "110152") if action == "R" else ("110152", "110153")
        user = _user(client, subject, issuer, agent, action)
        listed = [
            {
                "type": _concept(_DICOM, theirs),
                "who": {"identifier": {"value": client}} if client else {"display": "a client without a token"},
                "requestor": user is None,
                **_network(address, "2"),
            },
            {
                "type": _concept(_DICOM, ours),
                "who": {"display": _SERVER},
                "requestor": False,
                **_network(server, "1"),
            },
        ]
        return [*listed, user] if user is not None else listed


def _user(client: str, subject: str, issuer: str, agent: str, action: str) -> dict[str, Any] | None:
    """The person behind the client; None for a client that asks for itself."""
    if not agent and subject in ("", client):
        return None
    who: dict[str, Any] = {"reference": agent} if agent else {}
    if subject:
        who["identifier"] = {**({"system": issuer} if issuer else {}), "value": subject}
    role = "AUT" if action in ("C", "U", "D") else "IRCP"
    return {"type": _concept(_PARTICIPATION, role), "who": who, "requestor": True}


def _network(address: str, kind: str) -> dict[str, Any]:
    return {"network": {"address": address, "type": kind}} if address else {}


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


@dataclass(frozen=True)
class Origin(Written):
    """`source`: this server, and the machine it ran on."""

    def said(self, *texts: str) -> Any:
        site = {"site": texts[0]} if texts[0] else {}
        return {**site, "observer": {"display": _SERVER}, "type": [{"system": _SOURCE_TYPE, "code": "3"}]}


@dataclass(frozen=True)
class Entities(Written):
    """`entity`: the resource or the type asked for, the query, the patient, and the request's id.

    Columns: interaction, type, entity, entity_version, query, patient, request_id.
    """

    def said(self, *texts: str) -> Any:
        interaction, kind, entity, version, query, patient, request_id = texts
        listed = []
        if entity or (kind and not interaction.startswith("search")):
            what = {"reference": entity} if entity else {"type": kind, "display": kind}
            detail = {"detail": [{"type": "version", "valueString": version}]} if version else {}
            listed.append({"what": what, **_described("2", "4"), **detail})
        if query:
            listed.append({**_described("2", "24"), "query": b64encode(query.encode()).decode()})
        if patient:
            listed.append({"what": {"reference": patient}, **_described("1", "1")})
        if request_id:
            named = {"identifier": {"value": request_id}}
            listed.append({"what": named, "type": {"system": _BALP_ENTITY, "code": "XrequestId"}})
        return listed or None


def _described(kind: str, role: str) -> dict[str, Any]:
    return {"type": {"system": _ENTITY_TYPE, "code": kind}, "role": {"system": _ENTITY_ROLE, "code": role}}
