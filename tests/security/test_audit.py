"""Every interaction leaves an AuditEvent, refused ones too; nobody changes one, and no patient's token reads any."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from authority import Authority
from clinic import EXTENSION, Clinic, Resource, appointment, as_resource, links, matches, name, refusal, schedule, slot
from db import Database
from fhir_sched import journal
from fhir_sched.db.lanes import Lanes
from fhir_sched.journal import Journal
from fhir_sched.security.caller import OPEN, Caller
from fhir_sched.validate import resource_issues
from server import Server

ANN, BOB = "Patient/00000000-0000-4000-8000-0000000000a1", "Patient/bob"
DOCTOR = "Practitioner/7"
CANARY = "Zwetschgenkuchen"


@pytest.fixture(scope="module")
def server(database: Database, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens and logs everything."""
    keys: Path = tmp_path_factory.mktemp("keys")
    settings = {"issuer": authority.issuer, "jwks_url": authority.write(keys), "audience": "fhir"}
    running = Server(database.app_url, auth="smart", log_level="debug", **settings)
    running.log = keys / "stderr"
    running.journal_every_s = 0.05
    with running:
        yield running


class Audited:
    """A tenant with staff, an officer who reads the log, and a clinic of the staff."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        self.server, self.authority, self.tenant = server, authority, uuid4()
        self._clients: list[httpx.Client] = []
        self.staff = self.client("user/*.cruds", fhirUser=DOCTOR, client_id="desk", sub="dr-7")
        self.officer = self.client("system/AuditEvent.rs", client_id="officer", sub="officer")
        self.clinic = Clinic(server, database, self.tenant)
        self.clinic.http.close()
        self.clinic.http = self.staff
        self.slots: list[Resource] = []

    def client(self, scope: str, **claims: Any) -> httpx.Client:
        token = self.authority.token(self.tenant, "fhir", scope=scope, **claims)
        made = self.server.fhir(self.tenant, headers={"Authorization": f"Bearer {token}"})
        self._clients.append(made)
        return made

    def free(self, number: int = 1) -> list[Resource]:
        """New free slots of a schedule of their own."""
        made = self.clinic.create(schedule())
        return [self.clinic.create(slot(made, f"2036-06-01T{8 + hour:02}:00:00Z")) for hour in range(number)]

    def events(self, answer: httpx.Response | str, number: int = 1) -> list[Resource]:
        """The events of one request, once there are so many."""
        request_id = answer if isinstance(answer, str) else answer.headers["x-request-id"]
        deadline = time.monotonic() + 20
        found: list[Resource] = []
        while time.monotonic() < deadline:
            listed = matches(as_resource(self.officer.get("AuditEvent?_count=200")))
            found = [event for event in listed if request_id in _identifiers(event)]
            if len(found) >= number:
                break
            time.sleep(0.05)
        assert len(found) == number, found
        return found

    def close(self) -> None:
        for each in self._clients:
            each.close()


@pytest.fixture
def audited(server: Server, database: Database, authority: Authority) -> Iterator[Audited]:
    """A tenant of its own."""
    made = Audited(server, database, authority)
    yield made
    made.close()


def _sent(client: httpx.Client, path: str, **form: str) -> httpx.Response:
    """The answer to a search by POST."""
    return client.post(path, data=form, headers={"Content-Type": "application/x-www-form-urlencoded"})


def _patched(client: httpx.Client, path: str) -> httpx.Response:
    """The answer to a PATCH that takes the description away."""
    headers = {"Content-Type": "application/json-patch+json"}
    return client.patch(path, json=[{"op": "remove", "path": "/description"}], headers=headers)


def _weekly() -> Resource:
    """The rule of an hour on Mondays."""
    parts = [
        {"url": "daysOfWeek", "valueCode": "mon"},
        {"url": "startTime", "valueTime": "09:00:00"},
        {"url": "endTime", "valueTime": "10:00:00"},
        {"url": "slotMinutes", "valuePositiveInt": 20},
    ]
    return {"url": EXTENSION + "schedule-availability", "extension": parts}


def _identifiers(event: Resource) -> list[str]:
    return [entity["what"].get("identifier", {}).get("value", "") for entity in event["entity"] if "what" in entity]


def _references(event: Resource) -> list[str]:
    return [found for entity in event["entity"] if (found := entity.get("what", {}).get("reference"))]


def _said(event: Resource) -> tuple[Any, Any, Any]:
    return event["subtype"][0]["code"], event["action"], event.get("outcomeDesc", event["outcome"])


def _queries(event: Resource) -> list[str]:
    return [b64decode(entity["query"]).decode() for entity in event["entity"] if "query" in entity]


def test_each_interaction_leaves_its_event(audited: Audited) -> None:
    (free,) = audited.free()
    staff = audited.staff
    booked = staff.post("Appointment", json=appointment(free, patient=ANN))
    made = as_resource(booked)
    path = name(made)
    asked = [
        (booked, ("create", "C", "0")),
        (staff.get(path), ("read", "R", "0")),
        (staff.get(f"{path}/_history/1"), ("vread", "R", "0")),
        (staff.get(f"{path}/_history"), ("history-instance", "R", "0")),
        (staff.put(path, json={**made, "description": "moved"}), ("update", "U", "0")),
        (_patched(staff, path), ("patch", "U", "0")),
        (staff.get(f"Appointment?patient={ANN}"), ("search-type", "E", "0")),
        (_sent(staff, "Appointment/_search", patient=ANN), ("search-type", "E", "0")),
        (staff.get(f"{ANN}/Appointment"), ("search-type", "E", "0")),
        (staff.post("Appointment/$validate", json=made), ("operation", "E", "0")),
        (staff.delete(path), ("delete", "D", "0")),
        (staff.get("metadata"), ("capabilities", "E", "0")),
    ]
    for answer, said in asked:
        assert answer.is_success, answer.text
        (event,) = audited.events(answer)
        assert _said(event) == said
        assert resource_issues(event, "AuditEvent") == []
        about = [path] if said[0] in ("read", "vread", "update", "patch", "delete", "create") else []
        assert set(about) <= set(_references(event))
        assert (ANN in _references(event)) == (said[0] != "capabilities"), said


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 415, 422])
def test_what_is_refused_leaves_its_event(audited: Audited, status: int) -> None:
    taken, free = audited.free(2)
    made = audited.clinic.create(appointment(taken, patient=ANN))
    bare = audited.server.fhir(audited.tenant)
    reader = audited.client("user/Slot.rs", fhirUser=DOCTOR)
    past: dict[str, Any] = {"extension": [{"url": EXTENSION + "schedule-timezone", "valueCode": "Moon/Crater"}]}
    answer = {
        400: lambda: audited.staff.post("Appointment", json=appointment(free, patient=ANN, status="lost")),
        401: lambda: bare.get(name(made)),
        403: lambda: reader.get(name(made)),
        404: lambda: audited.staff.get(f"Appointment/apt-{uuid4()}"),
        405: lambda: audited.staff.post("AuditEvent", json={"resourceType": "AuditEvent"}),
        409: lambda: audited.staff.post("Appointment", json=appointment(taken, patient=ANN)),
        412: lambda: audited.staff.put(name(made), json=made, headers={"If-Match": 'W/"9"'}),
        415: lambda: audited.staff.post("Appointment", content="x", headers={"Content-Type": "text/plain"}),
        422: lambda: audited.staff.post("Schedule", json=schedule(**past)),
    }[status]()
    bare.close()
    refusal(answer, status)
    (event,) = audited.events(answer)
    assert event["outcome"] == "4"
    assert event["outcomeDesc"].startswith(str(status))
    assert resource_issues(event, "AuditEvent") == []
    if status in (400, 409, 412):
        assert ANN in _references(event)
    user = [agent for agent in event["agent"] if agent["requestor"]]
    assert user[0]["who"].get("reference") == (None if status == 401 else DOCTOR)


def test_an_event_names_client_user_server_and_where_from(audited: Audited) -> None:
    (event,) = audited.events(audited.staff.get("Slot?_count=1"))
    client, ours, user = event["agent"]
    assert client["who"] == {"identifier": {"value": "desk"}}
    assert client["network"]["address"] == "127.0.0.1"
    assert ours["who"] == {"display": "fhir-sched"}
    assert user["who"]["reference"] == DOCTOR
    assert user["who"]["identifier"] == {"system": audited.authority.issuer, "value": "dr-7"}
    assert [agent["requestor"] for agent in event["agent"]] == [False, False, True]


def test_the_query_is_kept_as_it_was_asked_and_no_token_with_it(audited: Audited) -> None:
    answer = audited.staff.get(f"Appointment?patient={ANN}&identifier=urn:x%7C{CANARY}&access_token=abc.def.ghi")
    (event,) = audited.events(answer)
    (query,) = _queries(event)
    assert query == f"Appointment?patient={ANN}&identifier=urn:x%7C{CANARY}&access_token=…"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("Slot%00?status=free", "Slot%00?status=free"),
        ("Slot/a%00b/c%0A?x=%00", "Slot/a%00b/c%0A?x=%00"),
        ("Sl%C3%B6t?status=%C3%B6", "Sl%C3%B6t?status=%C3%B6"),
    ],
)
def test_a_path_that_no_text_can_hold_costs_nobody_an_event(audited: Audited, path: str, query: str) -> None:
    """What a row can't hold would be refused with all the rows that are written beside it."""
    before, odd, after = (audited.staff.get(asked) for asked in ("Slot?_count=1", path, "Slot?_count=2"))
    assert [before.status_code, odd.status_code, after.status_code] == [200, 404, 200]
    for answer in (before, after):
        audited.events(answer)
    (event,) = audited.events(odd)
    assert _queries(event) == [query]


def test_a_token_whose_words_no_text_can_hold_costs_nobody_an_event(audited: Audited) -> None:
    odd = audited.client("user/*.cruds", client_id="a\0b", sub="dr\0", fhirUser=DOCTOR)
    answers = [audited.staff.get("Slot?_count=1"), odd.get("Slot?_count=1"), audited.staff.get("Slot?_count=2")]
    for answer in answers:
        audited.events(answer)


def test_each_patient_has_an_event_that_names_no_other(audited: Audited) -> None:
    one, two = audited.free(2)
    audited.clinic.create(appointment(one, patient=ANN))
    audited.clinic.create(appointment(two, patient=BOB))
    found = audited.staff.get("Appointment")
    both = audited.events(found, 2)
    assert sorted(_references(event)[-1] for event in both) == sorted([ANN, BOB])
    group = appointment(one, patient=ANN, status="proposed")
    group["participant"].append({"actor": {"reference": BOB}, "status": "accepted"})
    made = audited.staff.post("Appointment", json=group)
    assert sorted(_references(event)[-1] for event in audited.events(made, 2)) == sorted([ANN, BOB])
    gone = audited.staff.delete(name(as_resource(made)))
    assert sorted(_references(event)[-1] for event in audited.events(gone, 2)) == sorted([ANN, BOB])


def test_entries_of_a_batch_leave_their_own_events(audited: Audited) -> None:
    one, two = audited.free(2)
    audited.clinic.create(appointment(one, patient=ANN))
    entries = [
        {"request": {"method": "GET", "url": name(one)}},
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(one, patient=BOB)},
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(two, patient=BOB)},
    ]
    answer = audited.staff.post("", json={"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert sorted(map(_said, audited.events(answer, 4))) == [
        ("batch", "E", "0"), ("create", "C", "0"), ("create", "C", "409 Conflict"), ("read", "R", "0")
    ]  # fmt: skip


def test_a_transaction_that_fails_leaves_nothing_but_failures(audited: Audited) -> None:
    taken, free = audited.free(2)
    audited.clinic.create(appointment(taken, patient=ANN))
    entries = [
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(free, patient=BOB)},
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(taken, patient=BOB)},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = audited.staff.post("", json=bundle)
    refusal(answer, 409)
    assert sorted(map(_said, audited.events(answer, 3))) == [
        ("create", "C", "409 Conflict"), ("create", "C", "409 Conflict"), ("transaction", "E", "409 Conflict")
    ]  # fmt: skip
    entries[1]["resource"] = schedule()
    entries[1]["request"] = {"method": "POST", "url": "Schedule"}
    done = audited.staff.post("", json=bundle)
    assert sorted(map(_said, audited.events(done, 3))) == [
        ("create", "C", "0"), ("create", "C", "0"), ("transaction", "E", "0")
    ]  # fmt: skip


def test_a_repeat_under_an_idempotency_key_leaves_an_event_without_a_change(audited: Audited) -> None:
    (free,) = audited.free()
    key = {"Idempotency-Key": str(uuid4())}
    first, again = (audited.staff.post("Appointment", json=appointment(free), headers=key) for _ in range(2))
    assert again.headers["idempotent-replayed"] == "true"
    for answer in (first, again):
        (event,) = audited.events(answer)
        assert _said(event) == ("create", "C", "0")
        assert name(as_resource(first)) in _references(event)


def test_an_operation_leaves_an_event_of_its_own(audited: Audited) -> None:
    made = audited.clinic.create(schedule(extension=[_weekly()]))
    days = {"resourceType": "Parameters", "parameter": [
        {"name": "start", "valueDate": "2036-06-02"}, {"name": "end", "valueDate": "2036-06-08"},
    ]}  # fmt: skip
    generated = audited.staff.post(f"{name(made)}/$generate-slots", json=days)
    assert generated.status_code == 200, generated.text
    (event,) = audited.events(generated)
    assert _said(event) == ("operation", "E", "0")
    assert name(made) in _references(event)
    refused = audited.staff.post(f"Schedule/sch-{uuid4()}/$generate-slots", json=days)
    (event,) = audited.events(refused)
    assert _said(event) == ("operation", "E", "404 Not Found")


def test_no_change_without_its_event(audited: Audited, database: Database) -> None:
    (free,) = audited.free()
    with database.connect_admin() as admin:
        admin.execute("alter table audit_events add constraint no_booking check (patient <> 'Patient/bob') not valid")
    answer = audited.staff.post("Appointment", json=appointment(free, patient=BOB))
    with database.connect_admin() as admin:
        admin.execute("alter table audit_events drop constraint no_booking")
    assert not answer.is_success
    assert audited.clinic.read(free)["status"] == "free"
    assert audited.clinic.found("Appointment?patient=Patient/bob") == []


def test_the_log_is_searched_by_date_agent_entity_patient_and_outcome(audited: Audited) -> None:
    one, two = audited.free(2)
    made = audited.clinic.create(appointment(one, patient=ANN))
    audited.clinic.create(appointment(two, patient=BOB))
    answer = audited.staff.get(name(made))
    (event,) = audited.events(answer)
    refused = audited.staff.post("Appointment", json=appointment(one, patient=BOB))
    audited.events(refused)

    def subtypes(query: str) -> list[str]:
        found = as_resource(audited.officer.get(f"AuditEvent?{query}"))
        return sorted(each["subtype"][0]["code"] for each in matches(found))

    assert subtypes(f"entity={name(made)}") == ["create", "read"]
    assert subtypes(f"patient={ANN}&agent={DOCTOR}") == ["create", "read"]
    assert subtypes(f"patient=bob&agent={DOCTOR}") == ["create", "create"]
    assert subtypes(f"entity=Patient/bob&agent={DOCTOR}") == ["create", "create"]
    assert subtypes("outcome=4") == ["create"]
    assert subtypes(f"agent={DOCTOR}&outcome=0") == ["create"] * 5 + ["read"]
    assert subtypes("agent:identifier=desk&outcome=0") == subtypes("agent:identifier=dr-7&outcome=0")
    assert set(subtypes("agent:identifier=officer")) == {"search-type"}
    assert subtypes(f"date={event['recorded']}&entity={name(made)}") == ["read"]
    assert subtypes("date=lt2020-01-01") == []
    assert subtypes(f"patient=nobody-{uuid4()}") == []
    one_event = audited.officer.get(f"AuditEvent/{event['id']}")
    assert as_resource(one_event) == event
    refusal(audited.officer.get(f"AuditEvent/aud-{uuid4()}"), 404)


def test_pages_of_the_log_miss_and_repeat_nothing_while_it_grows(audited: Audited) -> None:
    asked = {audited.staff.get("Slot?_count=1").headers["x-request-id"] for _ in range(12)}
    for each in asked:
        audited.events(each)
    url, seen = "AuditEvent?agent=Practitioner/7&_count=5", []
    while url:
        bundle = as_resource(audited.officer.get(url))
        seen += matches(bundle)
        url = links(bundle).get("next", "")
        audited.staff.get("Slot?_count=1")
    recorded = [event["recorded"] for event in seen]
    assert recorded == sorted(recorded, reverse=True)
    assert len({event["id"] for event in seen}) == len(seen) >= 12
    assert asked <= {found for event in seen for found in _identifiers(event)}


def test_who_reads_the_log_is_in_it(audited: Audited) -> None:
    answer = audited.officer.get("AuditEvent?date=ge2020-01-01")
    (event,) = audited.events(answer)
    assert _said(event) == ("search-type", "E", "0")
    assert event["agent"][0]["who"] == {"identifier": {"value": "officer"}}


@pytest.mark.parametrize(
    ("scope", "claims", "status"),
    [
        ("patient/*.rs", {"patient": ANN}, 403),
        ("patient/AuditEvent.rs", {"patient": ANN}, 403),
        ("user/AuditEvent.rs", {"fhirUser": ANN}, 403),
        ("user/AuditEvent.rs", {"fhirUser": "RelatedPerson/5", "patient": ANN}, 403),
        ("user/Appointment.rs", {"fhirUser": DOCTOR}, 403),
        ("system/AuditEvent.cud", {}, 403),
        ("user/AuditEvent.rs", {"fhirUser": DOCTOR}, 200),
        ("system/*.rs", {}, 200),
    ],
)
def test_only_staff_and_systems_with_the_scope_read_the_log(
    audited: Audited, scope: str, claims: dict[str, str], status: int
) -> None:
    (event,) = audited.events(audited.staff.get("Slot?_count=1"))
    client = audited.client(scope, **claims)
    assert client.get("AuditEvent").status_code == status
    assert client.get(f"AuditEvent?patient={ANN}").status_code == status
    assert client.get(f"AuditEvent/{event['id']}").status_code == status
    assert _sent(client, "AuditEvent/_search", patient=ANN).status_code == status


def test_the_log_is_in_no_compartment_and_in_no_search_of_several_types(audited: Audited) -> None:
    audited.events(audited.staff.get(f"Appointment?patient={ANN}"))
    refusal(audited.staff.get(f"{ANN}/AuditEvent"), 404)
    refusal(audited.staff.get("?_type=AuditEvent"), 400)
    assert b"AuditEvent" not in audited.staff.get(f"{ANN}/*").content
    assert b"aud-" not in audited.staff.get("?_lastUpdated=ge2020-01-01").content
    assert b"aud-" not in audited.staff.get("_history").content
    refusal(audited.staff.get("Appointment?_has:AuditEvent:entity:outcome=0"), 400)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nobody_writes_the_log_by_the_api(audited: Audited, method: str) -> None:
    (event,) = audited.events(audited.staff.get("Slot?_count=1"))
    path = "AuditEvent" if method == "POST" else f"AuditEvent/{event['id']}"
    writer = audited.client("system/*.cruds")
    answer = writer.request(method, path, json=event)
    refusal(answer, 405)
    assert "GET" in answer.headers["allow"]
    entry = {"request": {"method": method, "url": path}, "resource": event}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    refusal(writer.post("", json=bundle), 405)


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_events set patient = null",
        "delete from audit_events",
        "truncate audit_events",
        "select fhir_sched_forget_audit_events(now())",
        "alter table audit_events disable row level security",
    ],
)
def test_the_servers_role_can_only_add(audited: Audited, database: Database, statement: str) -> None:
    with database.connect_app(audited.tenant) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement.encode())


def test_a_tenant_sees_its_own_log_alone(audited: Audited, database: Database, tenant: UUID) -> None:
    audited.events(audited.staff.get("Slot?_count=1"))
    with database.connect_app(tenant) as app:
        assert app.execute("select count(*) from audit_events").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(
                "insert into audit_events (tenant_id, interaction, action, status) values (%s, 'read', 'R', 200)",
                [audited.tenant],
            )


def test_the_owner_removes_what_is_old(audited: Audited, database: Database) -> None:
    (event,) = audited.events(audited.staff.get("Slot?_count=1"))
    with database.connect_admin() as admin:
        admin.execute(
            "insert into audit_events (tenant_id, recorded_at, interaction, action, status) "
            "select %s, timestamptz '2001-01-01' + n * interval '1 day', 'read', 'R', 200 "
            "from generate_series(1, 25) n",
            [audited.tenant],
        )
        removed = [
            admin.execute("select fhir_sched_forget_audit_events('2001-01-22', 10)").fetchone() for _ in range(4)
        ]
    assert removed == [(10,), (10,), (0,), (0,)]
    assert len(matches(as_resource(audited.officer.get("AuditEvent?date=lt2002")))) == 5
    assert audited.officer.get(f"AuditEvent/{event['id']}").status_code == 200


def test_a_database_that_is_away_for_a_moment_costs_no_event(audited: Audited, database: Database) -> None:
    answers = [audited.staff.get("Slot?_count=1") for _ in range(3)]
    with database.connect_admin() as admin, admin.transaction():
        admin.execute("lock table audit_events in access exclusive mode")
        answers += [audited.staff.get("Slot?_count=1") for _ in range(3)]
        time.sleep(1.5)
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'fhir-sched' and datname = current_database()"
        )
    for answer in answers:
        assert answer.status_code == 200
        audited.events(answer)


def test_the_end_of_the_server_loses_no_event(database: Database, tenant: UUID) -> None:
    with Server(database.app_url) as running, running.fhir(tenant) as client:
        for _ in range(20):
            assert client.get("Slot").status_code == 200
    with database.connect_app(tenant) as app:
        assert app.execute("select count(*) from audit_events").fetchone() == (20,)


def test_memory_for_events_is_bounded_and_who_has_no_token_has_a_small_share_of_it() -> None:
    full = Journal(Lanes("postgresql://nowhere"))

    def note(caller: Caller | None) -> None:
        full.note("t", "GET", ["Slot"], b"", 401, headers=(), caller=caller, request_id=b"1", address="")

    for _ in range(journal.UNKNOWN_ROOM + 7):
        note(None)
    assert full.dropped == 7
    for _ in range(journal.ROOM):
        note(OPEN)
    assert full.dropped == 7 + journal.UNKNOWN_ROOM


def test_without_the_log_there_are_no_events(database: Database, tenant: UUID) -> None:
    with Server(database.app_url, audit="off") as running:
        clinic = Clinic(running, database, tenant)
        made = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
        clinic.read(made)
        assert clinic.found("AuditEvent") == []
        clinic.close()
    with database.connect_app(tenant) as app:
        assert app.execute("select count(*) from audit_events").fetchone() == (0,)


def test_what_the_log_holds_is_printed_and_counted_nowhere(audited: Audited, database: Database) -> None:
    free = audited.free(2)
    secret = f"Patient/{CANARY}-7"
    audited.clinic.create(appointment(free[0], patient=secret, description=CANARY))
    answers = [
        audited.staff.get(f"Appointment?patient={secret}&identifier=urn:x|{CANARY}"),
        _sent(audited.staff, "Appointment/_search", patient=secret),
        audited.staff.post("Appointment", json=appointment(free[0], patient=secret)),
        audited.officer.get(f"AuditEvent?patient={secret}"),
        audited.officer.get(f"AuditEvent?patient={secret}&_page={CANARY}"),
        audited.server.client.get(f"/fhir/{audited.tenant}/Appointment?name={CANARY}"),
    ]
    with database.connect_admin() as admin:
        # what PostgreSQL says of a batch that it refuses holds the values of its rows
        admin.execute("alter table audit_events add constraint no_secret check (query is null) not valid")
    refused = audited.staff.get(f"Appointment?patient={secret}")
    deadline = time.monotonic() + 20
    while (
        time.monotonic() < deadline
        and b"audit_events_dropped_total 0.0" in audited.server.client.get("/metrics").content
    ):
        time.sleep(0.05)
    with database.connect_admin() as admin:
        admin.execute("alter table audit_events drop constraint no_secret")
    assert refused.status_code == 200
    counted = audited.server.client.get("/metrics").text
    assert "fhir_sched_audit_events_dropped_total 0.0" not in counted
    assert audited.server.log is not None
    printed = audited.server.log.read_text()
    assert len(printed.splitlines()) > len(answers)
    assert "audit events were refused" in printed
    token = audited.staff.headers["authorization"].split(".")[2]
    for planted in (CANARY, token, "urn:x", "desk", "dr-7"):
        assert planted not in printed
        assert planted not in counted
    assert CANARY not in json.dumps(answers[2].json())
