"""$validate: what a create, update or delete would be told, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from server import Server


@pytest.fixture
def clinic(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base(str(uuid4())), headers={"content-type": "application/fhir+json"}) as client:
        yield client


def slot(client: httpx.Client, **changed: Any) -> dict[str, Any]:
    actor = {"resourceType": "Schedule", "actor": [{"reference": "Practitioner/1"}]}
    schedule = client.post("/Schedule", json=actor).json()["id"]
    return {
        "resourceType": "Slot", "schedule": {"reference": f"Schedule/{schedule}"}, "status": "free",
        "start": "2027-01-04T09:00:00Z", "end": "2027-01-04T09:30:00Z", **changed,
    }  # fmt: skip


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(issue["severity"], issue["code"]) for issue in answer.json()["issue"]]


def test_a_good_resource_has_no_issues_and_is_not_stored(clinic: httpx.Client) -> None:
    good = slot(clinic)
    assert codes(clinic.post("/Slot/$validate", json=good)) == [("information", "informational")]
    assert codes(clinic.post("/Slot/$validate?mode=create", json=good)) == [("information", "informational")]
    assert clinic.get("/Slot").json()["total"] == 0


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"status": "x"}, "code-invalid"),
        ({"end": "2027-01-04T08:00:00Z"}, "business-rule"),
        ({"start": None}, "required"),
    ],
)
def test_every_fault_is_an_issue_of_a_200(clinic: httpx.Client, changed: dict[str, Any], code: str) -> None:
    wrong = {name: value for name, value in slot(clinic, **changed).items() if value is not None}
    assert ("error", code) in codes(clinic.post("/Slot/$validate", json=wrong))


def test_a_create_that_would_overlap_is_found_by_trying(clinic: httpx.Client) -> None:
    taken = slot(clinic)
    clinic.post("/Slot", json=taken)
    parameters = [{"name": "mode", "valueCode": "create"}, {"name": "resource", "resource": taken}]
    asked = {"resourceType": "Parameters", "parameter": parameters}
    assert codes(clinic.post("/Slot/$validate", json=asked)) == [("error", "conflict")]
    assert clinic.get("/Slot").json()["total"] == 1


def test_a_stored_resource_is_validated_and_its_deletion_tried(clinic: httpx.Client) -> None:
    stored = clinic.post("/Slot", json=slot(clinic)).json()
    schedule = stored["schedule"]["reference"]
    assert codes(clinic.get(f"/Slot/{stored['id']}/$validate")) == [("information", "informational")]
    assert codes(clinic.post(f"/Slot/{stored['id']}/$validate?mode=delete")) == [("information", "informational")]
    assert codes(clinic.post(f"/{schedule}/$validate?mode=delete")) == [("error", "conflict")]
    assert clinic.get(f"/Slot/{stored['id']}").json()["meta"]["versionId"] == "1"


def test_an_unknown_mode_is_400_and_an_unknown_profile_a_warning(clinic: httpx.Client) -> None:
    good = slot(clinic)
    assert clinic.post("/Slot/$validate?mode=guess", json=good).status_code == 400
    found = codes(clinic.post("/Slot/$validate?profile=http://example.org/p", json=good))
    assert found == [("warning", "not-supported")]


@pytest.mark.parametrize("name", ["resource", "mode", "profile"])
def test_an_input_that_is_given_twice_is_400(clinic: httpx.Client, name: str) -> None:
    content = {"resource": slot(clinic)} if name == "resource" else {"valueString": "create"}
    asked = {"resourceType": "Parameters", "parameter": [{"name": name, **content}] * 2}
    answer = clinic.post("/Slot/$validate", json=asked)
    assert answer.status_code == 400, answer.text
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["Parameters.parameter[1]"]
    assert issue["diagnostics"] == f"'{name}' may be given once"


@pytest.mark.parametrize("parameter", ["x", [{"name": "resource", "resource": "x"}], [{"resource": {}}], [7]])
def test_parameters_that_are_none_are_400(clinic: httpx.Client, parameter: Any) -> None:
    answer = clinic.post("/Slot/$validate", json={"resourceType": "Parameters", "parameter": parameter})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(("kind", "other", "named"), [("Appointment", "Slot", "an"), ("Slot", "Appointment", "a")])
def test_a_resource_of_another_type_is_named_with_its_article(
    clinic: httpx.Client, kind: str, other: str, named: str
) -> None:
    (issue,) = clinic.post(f"/{kind}/$validate", json={"resourceType": other}).json()["issue"]
    assert issue["diagnostics"] == f"This has to be {named} {kind}, not '{other}'."
