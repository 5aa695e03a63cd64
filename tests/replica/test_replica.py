"""Reads from a replica: they come from there, who has written reads it, no request fails for its sake."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self
from uuid import uuid4

import httpx

from clinic import Clinic, Resource, appointment, later, name, row_id, schedule, slot
from db import Database
from fhir_sched.db.freshness import BOUND_S, LEASE_S
from replica.conftest import figure
from server import Server
from standby import Pair, until

ANSWERED = 'reads_total{outcome="answered"}'
SAMPLED_S = 1.5
"""After how long the metrics of one process are known to the other."""
DAY = "2031-03-03T00:00:00Z"


@contextmanager
def paused(pair: Pair) -> Iterator[None]:
    """The standby goes on receiving and shows nothing of it."""
    pair.on_standby("select pg_wal_replay_pause()")
    try:
        yield
    finally:
        pair.on_standby("select pg_wal_replay_resume()")


def test_a_read_comes_from_the_replica(pair: Pair, server: Server, clinic: Clinic) -> None:
    made = clinic.schedule(comment="before")
    before = figure(server, ANSWERED)
    pair.on_primary(f"update schedules set is_active = false where id = '{row_id(made)}'")
    # another program's write shows when the standby has replayed it, which takes its time
    assert clinic.read(made)["active"] is True
    until(lambda: figure(server, ANSWERED) > before)
    until(lambda: clinic.read(made)["active"] is False, LEASE_S + 1)


def test_who_has_written_reads_it_from_whichever_process(server: Server, clinic: Clinic) -> None:
    def round_of(number: int) -> None:
        # a connection for each request, so that any of the two processes may answer it
        with Apart(server, clinic) as apart:
            practice = apart.sent("POST", "Schedule", schedule())
            opening = apart.sent("POST", "Slot", slot(practice, later(DAY, 60 * number)))
            booked = apart.sent("POST", "Appointment", appointment(opening, patient=f"Patient/{uuid4()}"))
            assert apart.got(name(opening))["status"] == "busy"
            assert apart.got(name(booked))["id"] == booked["id"]
            assert apart.got(f"{name(booked)}/_history/1")["status"] == "booked"
            found = apart.got(f"Appointment?slot={name(opening)}")
            assert [each["resource"]["id"] for each in found["entry"]] == [booked["id"]]
            apart.sent("PUT", name(booked), {**booked, "status": "cancelled"})
            assert apart.got(name(booked))["status"] == "cancelled"
            assert apart.got(name(opening))["status"] == "free"
            assert apart.got(f"{name(booked)}/_history")["total"] == 2
            assert apart.refused("POST", "Appointment", {**appointment(opening), "slot": []}) in (201, 400, 409, 422)
            apart.deleted(name(booked))
            assert apart.refused("GET", name(booked)) == 410

    before = figure(server, ANSWERED)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(round_of, range(500)))
    # they are not all the primary's answers: eight reads a round, and the replica was in use at the end
    assert figure(server, ANSWERED) - before > 2000
    assert figure(server, "in_use") == 2


def test_who_is_refused_a_slot_reads_that_it_is_taken(server: Server, clinic: Clinic) -> None:
    practice = clinic.schedule()
    for number in range(20):
        opening = clinic.slot(practice, later(DAY, 60 * number))
        seen: list[str] = []

        def race(opening: Resource = opening, seen: list[str] = seen) -> None:
            with Apart(server, clinic) as apart:
                apart.refused("POST", "Appointment", appointment(opening, patient=f"Patient/{uuid4()}"))
                seen.append(str(apart.got(name(opening))["status"]))

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(race) for _ in range(4)]:
                done.result()
        assert seen == ["busy"] * 4


def test_while_replay_is_paused_bookings_are_answered_and_read(pair: Pair, server: Server, clinic: Clinic) -> None:
    practice = clinic.schedule()
    openings = [clinic.slot(practice, later(DAY, 60 * number)) for number in range(8)]
    with paused(pair):
        for opening in openings:
            with Apart(server, clinic) as apart:
                booked = apart.sent("POST", "Appointment", appointment(opening, patient=f"Patient/{uuid4()}"))
                assert apart.got(name(booked))["status"] == "booked"
                assert apart.got(name(opening))["status"] == "busy"
        assert figure(server, "in_use") == 0
        # no one reads the replica any more, and everybody knows it: no write waits for it
        time.sleep(2 * SAMPLED_S)
        waits = figure(server, "waits_total")
        for opening in openings:
            clinic.put({**clinic.read(opening), "comment": "moved"})
        time.sleep(SAMPLED_S)
        assert figure(server, "waits_total") == waits
    until(lambda: figure(server, "in_use") == 2)


def test_a_write_waits_for_the_bound_at_most(pair: Pair, server: Server, clinic: Clinic) -> None:
    time.sleep(SAMPLED_S)
    waits, waited_s = figure(server, "waits_total"), figure(server, "wait_seconds_total")
    with paused(pair):
        clinic.schedule()
    time.sleep(SAMPLED_S)
    waits, waited_s = figure(server, "waits_total") - waits, figure(server, "wait_seconds_total") - waited_s
    assert waits == 1
    assert LEASE_S <= waited_s < BOUND_S + 1


def test_a_replica_that_is_killed_under_load_costs_no_request(pair: Pair, server: Server, clinic: Clinic) -> None:
    with load(server, clinic) as answers:
        pair.kill_standby()
        until(lambda: figure(server, "in_use") == 0)
        time.sleep(1.5)
        assert pair.standby.restart()
        until(lambda: figure(server, "in_use") == 2)
        before = figure(server, ANSWERED)
        until(lambda: figure(server, ANSWERED) > before + 50)
    assert {status for status in answers if status >= 400} == set()
    assert len(answers) > 100


def test_a_replica_that_hangs_costs_no_request(pair: Pair, server: Server, clinic: Clinic) -> None:
    with load(server, clinic) as answers:
        pair.hang_standby(hang=True)
        try:
            until(lambda: figure(server, "in_use") == 0)
            time.sleep(3)
        finally:
            pair.hang_standby(hang=False)
        until(lambda: figure(server, "in_use") == 2)
    assert {status for status in answers if status >= 400} == set()


def test_connections_cut_one_by_one_cost_no_request(pair: Pair, server: Server, clinic: Clinic) -> None:
    some = "select pid from pg_stat_activity where application_name = 'fhir-sched' order by random() limit 3"
    with load(server, clinic) as answers:
        for _ in range(10):
            pair.on_standby(f"select pg_terminate_backend(pid) from ({some}) s")
            time.sleep(0.1)
    assert {status for status in answers if status >= 400} == set()
    until(lambda: figure(server, "in_use") == 2)


def test_a_replica_that_was_promoted_is_not_read_any_more(pair: Pair) -> None:
    with Server(pair.primary.app_url, replica_url=pair.standby.app_url) as alone:
        clinic = Clinic(alone, Database(pair.primary.admin_url, pair.primary.app_url))
        until(lambda: figure(alone, "in_use") == 1)
        pair.on_standby("select pg_promote()")
        try:
            until(lambda: figure(alone, "in_use") == 0)
            made = clinic.schedule()
            assert clinic.read(made)["id"] == made["id"]
            time.sleep(1)
            assert figure(alone, "in_use") == 0
        finally:
            pair.renew_standby()
        until(lambda: figure(alone, "in_use") == 1)
        clinic.close()


class Apart:
    """Requests of one client, each over a connection of its own."""

    def __init__(self, server: Server, clinic: Clinic) -> None:
        self._http = server.fhir(clinic.tenant, limits=httpx.Limits(max_keepalive_connections=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def sent(self, method: str, path: str, body: Resource) -> Resource:
        answer = self._http.request(method, path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    def got(self, path: str) -> Resource:
        answer = self._http.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def deleted(self, path: str) -> None:
        assert self._http.delete(path).status_code == 204

    def refused(self, method: str, path: str, body: Resource | None = None) -> int:
        return self._http.request(method, path, json=body).status_code


@contextmanager
def load(server: Server, clinic: Clinic) -> Iterator[list[int]]:
    """The statuses of what four clients are answered meanwhile; each reads what it has just written."""
    answers: list[int] = []
    ended = threading.Event()

    def client(number: int) -> None:
        with Apart(server, clinic) as apart:
            practice = apart.sent("POST", "Schedule", schedule())
            while not ended.is_set():
                written = apart.refused("PUT", name(practice), {**practice, "comment": f"{len(answers)} {number}"})
                answers.append(written)
                paths = (name(practice), "Schedule?_count=2", f"{name(practice)}/_history", "_history?_count=2")
                answers.extend(apart.refused("GET", path) for path in paths)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client, number) for number in range(4)]
        try:
            yield answers
        finally:
            ended.set()
        for each in running:
            each.result()
