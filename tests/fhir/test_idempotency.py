"""Idempotency-Key: a request that is sent again gets the first answer, and nothing happens twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from clinic import Clinic, appointment, name, said, slot

START = "2026-06-02T09:00:00Z"


def _post(clinic: Clinic, body: dict[str, Any], key: str, path: str = "Appointment") -> httpx.Response:
    return clinic.http.post(path, json=body, headers={"Idempotency-Key": key})


def test_a_booking_that_is_sent_again_gets_the_first_answer(clinic: Clinic) -> None:
    body = appointment(clinic.slot(clinic.schedule(), START))
    first, again = (_post(clinic, body, "k") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for header in ("etag", "location", "last-modified"):
        assert again.headers[header] == first.headers[header]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(clinic.found("Appointment")) == 1


def test_the_key_of_another_request_is_422(clinic: Clinic) -> None:
    body = appointment(clinic.slot(clinic.schedule(), START))
    assert _post(clinic, body, "k").status_code == 201
    assert "used for another request" in said(_post(clinic, {**body, "comment": "x"}, "k"), 422)
    assert _post(clinic, body, "k").status_code == 201


def test_two_at_once_do_one_thing(clinic: Clinic) -> None:
    body = appointment(clinic.slot(clinic.schedule(), START))
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: _post(clinic, body, "k"), range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.content for answer in answers}) == 1
    assert len(clinic.found("Appointment")) == 1


def test_a_refusal_that_depends_on_the_data_is_kept(clinic: Clinic) -> None:
    free = clinic.slot(clinic.schedule(), START)
    holder = clinic.booked(free)
    refused = _post(clinic, appointment(free), "k")
    assert refused.status_code == 409
    assert clinic.http.delete(name(holder)).status_code == 204
    again = _post(clinic, appointment(free), "k")
    assert (again.status_code, again.content) == (409, refused.content)
    assert _post(clinic, appointment(free), "another").status_code == 201


def test_a_patch_is_done_once(clinic: Clinic) -> None:
    made = clinic.booked(clinic.slot(clinic.schedule(), START), comment="1")
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json-patch+json"}
    change = '[{"op": "replace", "path": "/comment", "value": "2"}]'
    answers = [clinic.http.patch(name(made), content=change, headers=headers) for _ in range(2)]
    assert [answer.headers["etag"] for answer in answers] == ['W/"2"', 'W/"2"']
    assert clinic.read(made)["meta"]["versionId"] == "2"


def test_keys_of_tenants_are_apart(clinic: Clinic, shared: Clinic) -> None:
    key = str(uuid4())
    for each in (clinic, shared):
        answer = _post(each, appointment(each.slot(each.schedule(), START)), key)
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_bundle_is_done_once(clinic: Clinic, kind: str) -> None:
    schedule = clinic.schedule()
    entries = [
        {"request": {"method": "POST", "url": "Slot"}, "resource": slot(schedule, f"2026-06-02T{hour}:00:00Z")}
        for hour in ("10", "11")
    ]
    bundle = {"resourceType": "Bundle", "type": kind, "entry": entries}
    answers = [_post(clinic, bundle, "k", "") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    ids = [[entry["resource"]["id"] for entry in answer.json()["entry"]] for answer in answers]
    assert ids[0] == ids[1]
    assert len(clinic.found(f"Slot?schedule={name(schedule)}")) == 2


def test_after_a_day_a_key_is_new(clinic: Clinic) -> None:
    body = appointment()
    assert _post(clinic, body, "k").status_code == 201
    clinic.sql(
        "update idempotent_requests set created_at = now() - interval '25 hours' where tenant_id = %s", clinic.tenant
    )
    assert "idempotent-replayed" not in _post(clinic, body, "k").headers
    assert len(clinic.found("Appointment")) == 2


@pytest.mark.parametrize("key", ["", '""', "x" * 256])
def test_a_key_that_is_none_is_400(clinic: Clinic, key: str) -> None:
    assert _post(clinic, appointment(), key).status_code == 400
