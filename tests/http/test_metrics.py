"""What /metrics tells Prometheus, of one process and of several."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

import httpx
from prometheus_client.parser import text_string_to_metric_families

from authority import Authority, Site
from clinic import Clinic
from db import Database
from server import Server

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _samples(server: Server) -> Samples:
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _labelled(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"fhir_sched_{name}", tuple(sorted(labels.items()))


def _until(server: Server, condition: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + 20
    while not condition(found := _samples(server)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_requests_bookings_conflicts_and_connections_are_counted(
    server: Server, database: Database, tenant: UUID
) -> None:
    clinic = Clinic(server, database, tenant)
    free = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
    assert [clinic.book(free).status_code for _ in range(3)] == [201, 409, 409]
    clinic.http.get(f"Slot/{free['id']}")
    clinic.close()
    booked = _labelled("requests_total", route="Appointment", method="POST", status="201")
    conflict = _labelled("errors_total", route="Appointment", method="POST", status="409")
    read = _labelled("request_seconds_count", route="Slot/{id}", method="GET")
    found = _until(server, lambda found: found.get(read) == 1)
    assert (found[booked], found[conflict]) == (1, 2)
    assert found[_labelled("bookings_total", outcome="booked")] == 1
    assert found[_labelled("bookings_total", outcome="conflict")] == 2
    assert found[_labelled("database_errors_total", reason="slot_taken")] == 2
    assert found[_labelled("lanes_connected", kind="shared")] == 4
    assert found[_labelled("lanes_connected", kind="exclusive")] == 8
    assert found[_labelled("lanes_in_use")] == 0
    assert found[_labelled("database_round_trips_total")] >= 6
    assert next(value for (name, _), value in found.items() if name == "process_resident_memory_bytes") > 1e7
    assert str(tenant) not in str(found)


def test_the_backlog_of_the_outbox_is_told_without_a_relay_too(
    server: Server, database: Database, tenant: UUID
) -> None:
    clinic = Clinic(server, database, tenant)
    clinic.schedule()
    clinic.sql("update outbox set created_at = created_at - interval '1 hour' where tenant_id = %s", tenant)
    ((waiting,),) = clinic.sql("select count(*) from outbox where not published")
    clinic.close()
    with Server(database.app_url, relay="off") as apart:
        found = _until(apart, lambda found: found[_labelled("outbox_waiting")] > 0)
    assert found[_labelled("outbox_waiting")] == waiting
    assert 3600 <= found[_labelled("outbox_oldest_seconds")] < 7200
    assert found[_labelled("outbox_parked")] == 0
    assert str(tenant) not in str(found)


def test_any_of_several_processes_tells_of_all(database: Database, tenant: UUID) -> None:
    with Server(database.app_url, workers="2") as several:
        count = _labelled("requests_total", route="metadata", method="GET", status="200")
        # the port listens before the processes do; whoever comes then waits
        assert {httpx.get(f"{several.url}/fhir/{tenant}/metadata", timeout=60).status_code for _ in range(20)} == {200}
        for _ in range(5):
            assert _until(several, lambda found: found.get(count) == 20)
        connected = _until(several, lambda found: found[_labelled("lanes_connected", kind="shared")] == 8)
        assert len([name for name, _ in connected if name == "process_resident_memory_bytes"]) == 2


def test_the_keys_of_each_issuer_and_how_fetching_them_goes_are_told(database: Database, tenant: UUID) -> None:
    with Site().running() as site:
        authority = Authority(site.url)
        settings = {"auth": "smart", "issuer": site.url, "jwks_url": f"{site.url}/keys"}
        with Server(database.app_url, **settings) as guarded:
            base = guarded.base(tenant)

            def status(key: str) -> int:
                token = authority.token(tenant, base, header={"kid": key})
                return httpx.get(f"{base}/Slot", headers={"Authorization": f"Bearer {token}"}).status_code

            held, age = _labelled("jwks_keys", issuer=site.url), _labelled("jwks_age_seconds", issuer=site.url)
            failures = _labelled("jwks_fetches_total", issuer=site.url, outcome="failure")
            assert status("first") == 503
            found = _samples(guarded)
            assert (found[held], found[failures]) == (0, 1)
            assert age not in found
            failed_at = found[_labelled("jwks_last_failure_timestamp_seconds", issuer=site.url)]
            assert abs(time.time() - failed_at) < 60

            site.json("/keys", authority.key_set())
            deadline = time.monotonic() + 20
            while status("first") != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            found = _samples(guarded)
            assert (found[held], found[failures]) == (1, 1)
            assert found[_labelled("jwks_fetches_total", issuer=site.url, outcome="success")] == 1
            assert 0 <= found[age] < 60
            assert found[_labelled("jwks_last_success_timestamp_seconds", issuer=site.url)] >= failed_at
