"""A clinic for tests: one tenant of the running server, the resources it needs, and the other programs' SQL.

What a test is about stands in the test; here are only the parts that every request needs (participants, references).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from db import Database
from server import Server

FHIR_JSON = "application/fhir+json"
EXTENSION = "http://fhir-sched.org/fhir/StructureDefinition/"
PATIENT = "Patient/00000000-0000-4000-8000-0000000000aa"
DOCTOR = "Practitioner/00000000-0000-4000-8000-0000000000dd"

Resource = dict[str, Any]


class Clinic:
    """One tenant: `http` speaks to its FHIR base, `sql` is another program that writes to its tables."""

    def __init__(self, server: Server, database: Database, tenant: UUID | None = None) -> None:
        self.server, self.database = server, database
        self.tenant = tenant or uuid4()
        self.base = server.base(self.tenant)
        self.http = server.fhir(self.tenant)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    # resources, made and made sure of

    def create(self, resource: Resource) -> Resource:
        """The resource as the server answers a POST of it."""
        answer = self.http.post(resource["resourceType"], json=resource)
        assert answer.status_code == 201, answer.text
        return as_resource(answer)

    def schedule(self, zone: str = "", **elements: Any) -> Resource:
        """A new Schedule of a practitioner of its own, in a time zone where one is given."""
        if zone:
            elements.setdefault("extension", []).append({"url": EXTENSION + "schedule-timezone", "valueCode": zone})
        return self.create(schedule(**elements))

    def slot(self, of: Resource, start: str, minutes: int = 15, **elements: Any) -> Resource:
        """A new Slot of the schedule, free unless the elements say otherwise."""
        return self.create(slot(of, start, minutes, **elements))

    def book(self, *slots: Resource, **elements: Any) -> httpx.Response:
        """The answer to POST Appointment for these slots."""
        return self.http.post("Appointment", json=appointment(*slots, **elements))

    def booked(self, *slots: Resource, **elements: Any) -> Resource:
        """A new Appointment in these slots."""
        return self.create(appointment(*slots, **elements))

    def put(self, resource: Resource, **headers: str) -> httpx.Response:
        """The answer to a PUT of the resource at its id."""
        return self.http.put(
            name(resource), json=resource, headers={key.replace("_", "-"): v for key, v in headers.items()}
        )

    def read(self, resource: Resource | str) -> Resource:
        """The current version."""
        answer = self.http.get(resource if isinstance(resource, str) else name(resource))
        assert answer.status_code == 200, answer.text
        return as_resource(answer)

    # searches

    def bundle(self, query: str) -> Resource:
        """The searchset of a query such as `Slot?status=free` (percent-encoded as it stands)."""
        answer = self.http.get(query)
        assert answer.status_code == 200, answer.text
        return as_resource(answer)

    def matches(self, query: str) -> list[Resource]:
        """The resources that match, in their order, of the first page."""
        return matches(self.bundle(query))

    def found(self, query: str) -> list[str]:
        """`Type/id` of the resources that match."""
        return [name(each) for each in self.matches(query)]

    # other programs

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement that another program runs, as superuser without app.tenant_id."""
        with self.database.connect_admin() as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


def schedule(**elements: Any) -> Resource:
    """A Schedule as a client writes it."""
    actor = [{"reference": f"Practitioner/{uuid4()}"}]
    return {"resourceType": "Schedule", "actor": actor, **elements}


def slot(of: Resource, start: str, minutes: int = 15, **elements: Any) -> Resource:
    """A Slot as a client writes it."""
    end = later(start, minutes)
    return {
        "resourceType": "Slot",
        "schedule": {"reference": name(of)},
        "status": "free",
        "start": start,
        "end": end,
        **elements,
    }


def appointment(*slots: Resource, patient: str = PATIENT, doctor: str = "", **elements: Any) -> Resource:
    """A booked Appointment in these slots, from the start of the first to the end of the last."""
    made: Resource = {"resourceType": "Appointment", "status": "booked"}
    if slots:
        made |= {"slot": [{"reference": name(each)} for each in slots]}
        made |= {"start": slots[0]["start"], "end": slots[-1]["end"]}
    elif elements.get("status") != "waitlist":
        made |= {"start": "2026-06-02T09:00:00Z", "end": "2026-06-02T09:15:00Z"}
    actors = [patient, doctor] if doctor else [patient]
    made["participant"] = [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors]
    return {key: value for key, value in {**made, **elements}.items() if value is not None}


def later(instant: str, minutes: int) -> str:
    """The instant moved, as UTC."""
    moved = datetime.fromisoformat(instant.replace("Z", "+00:00")) + timedelta(minutes=minutes)
    return moved.isoformat().replace("+00:00", "Z")


def name(resource: Resource) -> str:
    """`Slot/slt-…`."""
    return f"{resource['resourceType']}/{resource['id']}"


def row_id(resource: Resource) -> UUID:
    """The key of the row behind a resource."""
    return UUID(resource["id"].partition("-")[2])


def as_resource(answer: httpx.Response) -> Resource:
    """The JSON of an answer."""
    body: Resource = answer.json()
    return body


def matches(bundle: Resource) -> list[Resource]:
    """The matches of a searchset."""
    return [entry["resource"] for entry in bundle.get("entry", []) if entry["search"]["mode"] == "match"]


def links(bundle: Resource) -> dict[str, str]:
    """URLs of a Bundle's links by relation."""
    return {link["relation"]: link["url"] for link in bundle["link"]}


def refusal(answer: httpx.Response, status: int) -> list[Resource]:
    """The issues of an answer that has to be a refusal with this status, said as FHIR says it."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:1000]}"
    assert answer.headers["content-type"].startswith("application/fhir+json"), answer.headers["content-type"]
    outcome = as_resource(answer)
    assert outcome["resourceType"] == "OperationOutcome"
    issues: list[Resource] = outcome["issue"]
    assert issues
    assert all(issue["severity"] in ("error", "fatal", "warning", "information") for issue in issues)
    assert all(issue["code"] and issue["diagnostics"] for issue in issues)
    return issues


def said(answer: httpx.Response, status: int) -> str:
    """All diagnostics of a refusal."""
    return " / ".join(issue["diagnostics"] for issue in refusal(answer, status))
