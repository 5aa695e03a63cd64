"""All forms of scopes against all interactions, by an oracle of its own that reads the specification's sentences.

First the decision alone, then over HTTP, then inside a batch and a transaction. SMART App Launch 2.2, "Scopes".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from authority import Authority
from clinic import EXTENSION, appointment, schedule, slot
from db import Database
from fhir_sched.search.parse import Parser
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import LETTERS, decide
from fhir_sched.security.guard import Guard
from fhir_sched.security.scopes import MAX_SCOPES, Scope, parse
from server import Server

TENANT = UUID("5eed0000-0000-4000-8000-000000000001")
TYPES = ("Appointment", "Slot", "Schedule")
PREFIX = {"Appointment": "apt", "Slot": "slt", "Schedule": "sch"}
CONTEXTS = ("patient", "user", "system")
V2 = ["".join(kept) for size in range(1, 6) for kept in itertools.combinations("cruds", size)]
V1 = ["read", "write", "*"]

# What the specification says, written down once more.
V1_MEANS = {"read": {"r", "s"}, "write": {"c", "u", "d"}, "*": set("cruds")}
NEEDS = {
    "read": "r", "vread": "r", "history-instance": "r", "validate-stored": "r",
    "search": "s", "search by form": "s", "history-type": "s", "compartment": "s", "compartment by form": "s",
    "create": "c", "validate": "c", "conditional create": "cs",
    "update": "u", "patch": "u", "conditional update": "us", "conditional patch": "us",
    "delete": "d", "conditional delete": "ds",
}  # fmt: skip


def permits(scope: str, letter: str, resource_type: str) -> bool:
    """The oracle: whether a scope that is well formed permits a letter of cruds on a type, within limits or without."""
    context, _, rest = scope.partition("/")
    kind, _, permissions = rest.partition(".")
    granted = V1_MEANS.get(permissions) or set(permissions)
    if kind not in ("*", resource_type) or letter not in granted:
        return False
    return not (context == "patient" and resource_type != "Appointment" and letter in "cud")


SCOPES = [f"{c}/{t}.{p}" for c in CONTEXTS for t in ("*", *TYPES, "Patient") for p in V2 + V1]
PATIENT, DOCTOR = "Patient/00000000-0000-4000-8000-0000000000aa", "Practitioner/7"


def caller(scope: str, **changed: Any) -> Caller:
    """A practitioner in whose session a patient is open."""
    return Caller(subject=str(TENANT), scopes=parse(scope), **{"patient": PATIENT, "user": DOCTOR, **changed})


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_permits_what_it_says_and_nothing_else(scope: str) -> None:
    for letter, resource_type in itertools.product("cruds", TYPES):
        decision = decide(caller(scope), letter, resource_type)
        assert decision.allowed is permits(scope, letter, resource_type), (letter, resource_type)
        if decision.allowed and scope.startswith("patient/"):
            public = resource_type != "Appointment"
            assert decision.public is public
            assert decision.unlimited is public
            assert [limit.patient for limit in decision.limits] == ([] if public else [PATIENT])
        elif decision.allowed:
            assert decision.unlimited
            assert not decision.public


def test_scopes_add_up_and_nothing_else_does() -> None:
    for first, second in itertools.product(SCOPES[::7], SCOPES[3::11]):
        for letter, resource_type in itertools.product("cruds", TYPES):
            either = permits(first, letter, resource_type) or permits(second, letter, resource_type)
            found = decide(caller(f"openid {first} launch/patient {second}"), letter, resource_type)
            assert found.allowed is either, (first, second, letter, resource_type)


MALFORMED = [
    "patient/Appointment.dus", "patient/Appointment.sr", "patient/Appointment.rr", "patient/Appointment.",
    "patient/Appointment", "patient/.rs", "patient/appointment.rs", "Patient/Appointment.rs", "patient/Appointment.RS",
    "patient/Appointment.readwrite", "patient/Appointment.read,write", "patient/Appointment.r s", "patient/*.x",
    "patient/**.rs", "patient//Appointment.rs", "patient/Appointment.rs?", "patient/Appointment.rs?status",
    "patient/Appointment.read?status=booked", "/Appointment.rs", "user.Appointment.rs",
    "user/Appointment/rs", "user/Appointment.rs\x00", "user/Appointment.rѕ", "launch/patient", "openid", "fhirUser",
    "offline_access", "user/Appointment.rs?status=%ff",
]  # fmt: skip


@pytest.mark.parametrize("scope", MALFORMED)
def test_what_is_not_understood_grants_nothing(scope: str) -> None:
    granted = {
        (letter, kind) for letter in "cruds" for kind in TYPES if decide(caller(scope), letter, kind).allowed
    }  # fmt: skip
    assert granted == ({("r", "Appointment")} if scope == "patient/Appointment.r s" else set())


def test_more_scopes_than_anybody_needs_are_left_out() -> None:
    assert len(parse("user/Slot.r " * 100_000)) == MAX_SCOPES


def test_every_interaction_of_the_server_needs_letters_that_somebody_thought_about() -> None:
    from fhir_sched.definition import METHODS

    missing = set(METHODS) - set(LETTERS) - {"transaction", "batch"}
    assert missing == set()


@pytest.mark.parametrize("user", ["Patient/9", "RelatedPerson/9", "Person/9"])
def test_a_user_who_is_a_patient_reaches_no_further_than_a_patient(user: str) -> None:
    for letter in "cruds":
        decision = decide(caller("user/*.cruds", user=user), letter, "Appointment")
        assert [limit.patient for limit in decision.limits] == [PATIENT]
        assert decide(caller("user/*.cruds", user=user), letter, "Slot").allowed is (letter in "rs")
    alone = decide(caller("user/*.cruds", user=user, patient=""), "r", "Appointment")
    assert [limit.patient for limit in alone.limits] == ([user] if user.startswith("Patient/") else [])


def test_a_patients_scope_without_a_patient_grants_nothing() -> None:
    for letter, kind in itertools.product("cruds", TYPES):
        assert not decide(caller("patient/*.cruds", patient=""), letter, kind).allowed


def test_staffs_queries_do_not_lift_the_public_view() -> None:
    assert decide(caller("patient/Slot.rs user/Slot.rs?status=free"), "s", "Slot").public
    assert not decide(caller("patient/Slot.rs user/Slot.rs"), "s", "Slot").public
    assert not decide(caller("user/Slot.rs?status=free"), "s", "Slot").public


@pytest.mark.parametrize(
    "query",
    ["colour=red", "=booked", "status:exactly=booked", "_count=5", "_include=Appointment:slot", "_sort=date",
     "date=yesterday", "status=booked&colour=red", "patient=a|b|c", "_filter=x", "_format=json"],
)  # fmt: skip
def test_a_query_that_can_not_be_evaluated_grants_nothing(query: str) -> None:
    from fhir_sched.resources import RESOURCES
    from fhir_sched.search.query import AnyOf

    guard = Guard(caller(f"user/Appointment.rs?{query}"), Parser(RESOURCES, "http://x/fhir/t", str(TENANT)))
    assert guard.limits(RESOURCES["Appointment"], "r") == (AnyOf(()),)


def test_granular_scopes_are_alternatives() -> None:
    found = decide(caller("user/Slot.rs?status=free user/Slot.rs?status=busy&schedule=x"), "r", "Slot")
    assert [limit.query for limit in found.limits] == [(("status", "free"),), (("status", "busy"), ("schedule", "x"))]
    assert decide(caller("user/Slot.rs?status=free user/Slot.r"), "r", "Slot").unlimited
    assert parse("user/Slot.rs?status=free%2Cbusy") == (Scope("user", "Slot", "rs", (("status", "free,busy"),)),)


# over HTTP


@pytest.fixture(scope="module")
def server(database: Database, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens; their audience is `fhir`."""
    keys: Path = tmp_path_factory.mktemp("keys")
    settings = {"issuer": authority.issuer, "jwks_url": authority.write(keys), "audience": "fhir"}
    with Server(database.app_url, auth="smart", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.fhir(TENANT) as client:
        yield client


def nowhere(kind: str) -> str:
    """A resource that does not exist, so that whatever is permitted changes nothing."""
    return f"{kind}/{PREFIX[kind]}-00000000-0000-4000-8000-000000000000"


def body(kind: str) -> dict[str, Any]:
    """A body that is refused as invalid, once it is read at all."""
    return {"resourceType": kind, "id": nowhere(kind).partition("/")[2], "status": "no such code"}


Asked = tuple[str, str, dict[str, Any]]


def asked(kind: str) -> dict[str, Asked]:
    """Each interaction with a type as method, path and what else httpx takes."""
    at, given = nowhere(kind), {"json": body(kind)}
    form = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    patch = {"content": b'[{"op": "remove", "path": "/x"}]', "headers": {"Content-Type": "application/json-patch+json"}}
    criteria = "_id=nobody"
    found: dict[str, Asked] = {
        "read": ("GET", at, {}),
        "vread": ("GET", f"{at}/_history/1", {}),
        "history-instance": ("GET", f"{at}/_history", {}),
        "validate-stored": ("GET", f"{at}/$validate", {}),
        "search": ("GET", kind, {}),
        "search by form": ("POST", f"{kind}/_search", form),
        "history-type": ("GET", f"{kind}/_history", {}),
        "create": ("POST", kind, given),
        "validate": ("POST", f"{kind}/$validate", given),
        "conditional create": ("POST", kind, {**given, "headers": {"If-None-Exist": criteria}}),
        "update": ("PUT", at, given),
        "patch": ("PATCH", at, patch),
        "conditional update": ("PUT", f"{kind}?{criteria}", given),
        "conditional patch": ("PATCH", f"{kind}?{criteria}", patch),
        "delete": ("DELETE", at, {}),
        "conditional delete": ("DELETE", f"{kind}?{criteria}", {}),
    }
    if kind != "Slot":
        found["compartment"] = ("GET", f"Practitioner/7/{kind}", {})
        found["compartment by form"] = ("POST", f"Practitioner/7/{kind}/_search", form)
    return found


FORMS = ["r", "s", "c", "u", "d", "rs", "cs", "us", "ds", "cud", "cruds", "read", "write", "*"]
TRIED = [f"{context}/{kind}.{form}" for context in CONTEXTS for kind in ("*", *TYPES) for form in FORMS]


def signed(authority: Authority, scope: str) -> dict[str, str]:
    token = authority.token(TENANT, "fhir", scope=scope, patient=PATIENT, fhirUser=DOCTOR)
    return {"Authorization": f"Bearer {token}"}


def expected(scope: str, interaction: str, kind: str) -> bool:
    return all(permits(scope, letter, kind) for letter in NEEDS[interaction])


@pytest.mark.parametrize("scope", TRIED)
def test_every_interaction_over_http_asks_for_its_scope(http: httpx.Client, authority: Authority, scope: str) -> None:
    who = signed(authority, scope)
    for kind in TYPES:
        for interaction, (method, path, options) in asked(kind).items():
            answer = http.request(method, path, **{**options, "headers": {**options.get("headers", {}), **who}})
            assert (answer.status_code != 403) is expected(scope, interaction, kind), (interaction, kind, answer.text)
            assert answer.status_code not in (401, 500, 501), (interaction, kind, answer.text)
            if answer.status_code == 403:
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    some = any(permits(scope, "s", kind) for kind in TYPES)
    for path in ("", "_history", "?_type=Appointment,Slot,Schedule"):
        assert (http.get(path, headers=who).status_code == 200) is some, path


def entries(kind: str) -> dict[str, dict[str, Any]]:
    """The interactions that a Bundle can ask for, as entries."""
    found = {}
    for interaction, (method, path, options) in asked(kind).items():
        if "form" in interaction or interaction in ("validate", "conditional create"):
            continue
        entry: dict[str, Any] = {"request": {"method": method, "url": path}}
        if method in ("POST", "PUT"):
            entry["resource"] = options["json"]
        elif method == "PATCH":
            entry["resource"] = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
        found[interaction] = entry
    found["conditional create"] = {
        "request": {"method": "POST", "url": kind, "ifNoneExist": "_id=nobody"}, "resource": body(kind),
    }  # fmt: skip
    return found


def bundle(kind: str, *listed: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(listed)}


@pytest.mark.parametrize("scope", TRIED)
def test_each_entry_of_a_batch_is_judged_by_itself(http: httpx.Client, authority: Authority, scope: str) -> None:
    for kind in TYPES:
        listed = {name: entry for name, entry in entries(kind).items() if valid(entry)}
        answer = http.post("", json=bundle("batch", *listed.values()), headers=signed(authority, scope))
        assert answer.status_code == 200, answer.text
        for (interaction, _), said in zip(listed.items(), answer.json()["entry"], strict=True):
            permitted = not said["response"]["status"].startswith("403")
            assert permitted is expected(scope, interaction, kind), (interaction, kind, said)


@pytest.mark.parametrize("scope", [f"{c}/{t}.{p}" for c in CONTEXTS for t in ("*", "Slot") for p in FORMS])
def test_a_transaction_with_one_entry_too_many_fails_whole(
    http: httpx.Client, authority: Authority, scope: str
) -> None:
    for kind in ("Appointment", "Slot"):
        for interaction, entry in entries(kind).items():
            if valid(entry):
                answer = http.post("", json=bundle("transaction", entry), headers=signed(authority, scope))
                assert (answer.status_code != 403) is expected(scope, interaction, kind), (interaction, answer.text)


def valid(entry: dict[str, Any]) -> bool:
    """A Bundle is validated whole, so an invalid resource has no place in it: deeds with a body are tried below."""
    return "resource" not in entry


def test_deeds_with_a_body_inside_bundles(http: httpx.Client, authority: Authority) -> None:
    resource = appointment(patient=PATIENT, status="proposed", start=None, end=None)
    deeds = {
        "create": {"request": {"method": "POST", "url": "Appointment"}, "resource": resource},
        "update": {
            "request": {"method": "PUT", "url": nowhere("Appointment")},
            "resource": {**resource, "id": nowhere("Appointment").partition("/")[2]},
        },
    }
    for form in FORMS:
        for context in CONTEXTS:
            scope = f"{context}/Appointment.{form}"
            for interaction, entry in deeds.items():
                if interaction == "create" and expected(scope, interaction, "Appointment"):
                    continue
                who = signed(authority, scope)
                batch = http.post("", json=bundle("batch", entry), headers=who).json()
                permitted = not batch["entry"][0]["response"]["status"].startswith("403")
                assert permitted is expected(scope, interaction, "Appointment"), json.dumps(batch)
                status = http.post("", json=bundle("transaction", entry), headers=who).status_code
                assert (status != 403) is expected(scope, interaction, "Appointment"), (scope, status)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("letters", ["c", "cruds", "rsud", "c?status=free"])
def test_slots_are_generated_by_whoever_may_create_any(
    http: httpx.Client, authority: Authority, context: str, letters: str
) -> None:
    path = f"{nowhere('Schedule')}/$generate-slots?start=2031-03-03&end=2031-03-03"
    answer = http.post(path, headers=signed(authority, f"{context}/Slot.{letters} user/Schedule.cruds"))
    assert answer.status_code == (404 if context != "patient" and letters in ("c", "cruds") else 403), answer.text


def test_the_cells_are_as_many_as_they_should_be() -> None:
    over_http = len(TRIED) * sum(len(asked(kind)) for kind in TYPES)
    assert over_http > 1500
    assert len(SCOPES) * 5 * len(TYPES) > 1500


@pytest.mark.parametrize(
    ("scope", "named"),
    [
        ("system/Slot.cruds system/Appointment.r", True),
        ("user/*.cruds", True),
        ("user/Slot.cruds", False),
        ("user/Slot.cruds user/Appointment.c", False),
        ("user/Slot.cruds patient/Appointment.cruds", False),
        ("user/Slot.cruds user/Appointment.rs?status=booked", False),
    ],
)
def test_an_exception_names_appointments_to_those_who_may_read_all_of_them(
    http: httpx.Client, authority: Authority, scope: str, named: bool
) -> None:
    staff = signed(authority, "system/*.cruds")
    made = http.post("Schedule", json=schedule(), headers=staff).json()
    free = http.post("Slot", json=slot(made, "2031-03-03T09:00:00Z"), headers=staff).json()
    http.post("Appointment", json=appointment(free, patient=PATIENT), headers=staff)
    kind = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
    closed = slot(made, "2031-03-03T09:00:00Z", status="busy-unavailable", extension=kind)
    who = signed(authority, scope)
    written = http.post("Slot", json=closed, headers=who)
    assert written.status_code == 201, written.text
    at = f"Slot/{written.json()['id']}"
    wanted = {"Prefer": "return=OperationOutcome"}
    answers = [
        written.text,
        http.post("Slot", json=closed, headers={**who, **wanted}).text,
        http.get(at, headers=who).text,
        http.get(f"{at}/_history", headers=who).text,
        http.get(f"Slot?_id={written.json()['id']}", headers=who).text,
    ]
    assert ["Appointment/apt-" in text for text in answers] == [named] * 5
    assert "Appointment/apt-" not in http.get(at, headers=signed(authority, "patient/*.cruds")).text
