"""Tenants never meet: not in a pool of two connections under errors, time-outs and disconnects, nor in what is unique.

What one tenant has used is to another like what nobody has used, to the byte.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from clinic import Clinic, appointment, name, schedule, slot
from db import Database
from faults.conftest import Scale
from faults.narrow import NarrowServer
from faults.wire import NoAnswerError, NotSentError, Reply, Wire, request
from server import Server

Resource = dict[str, Any]
ID = re.compile(rb"\b(sch|slt|exc|apt|wl)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
IDENTIFIER = {"system": "urn:records", "value": "the-same-everywhere"}
NINE = "2031-03-03T09:00:00Z"


@dataclass
class Tenant:
    """A tenant whose every text holds its `colour`; `seen` are the ids that its answers named."""

    id: UUID = field(default_factory=uuid4)
    colour: str = field(default_factory=lambda: f"colour-{uuid4().hex}")
    slots: list[Resource] = field(default_factory=list)
    booked: list[Resource] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def furnish(self, server: Server) -> None:
        """A schedule with slots."""
        with server.fhir(self.id) as http:
            of = http.post("Schedule", json=schedule(comment=self.colour)).json()
            for hour in range(24):
                start = f"2031-03-03T{hour:02}:00:00Z"
                self.slots.append(http.post("Slot", json=slot(of, start, 60, comment=self.colour)).json())

    def booking(self, chance: random.Random, **elements: Any) -> Resource:
        """An appointment in one of the slots, under an identifier that the other tenants use too."""
        return appointment(chance.choice(self.slots), description=self.colour, **elements)


class Mix:
    """Random requests of three tenants over a few connections that all of them share."""

    def __init__(self, server: Server, tenants: list[Tenant]) -> None:
        split = urlsplit(server.url)
        assert split.hostname is not None
        assert split.port is not None
        self.host, self.port = split.hostname, split.port
        self.tenants = tenants
        self.chance = random.Random(11)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.left = 0

    async def run(self, requests: int, clients: int = 12) -> None:
        """That many requests."""
        self.left = requests
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        wire = Wire(self.host, self.port)
        try:
            await self._work(wire)
        finally:
            wire.cut()

    async def _work(self, wire: Wire) -> None:
        while self.left > 0:
            self.left -= 1
            tenant = self.chance.choice(self.tenants)
            method, path, body, headers = self._request(tenant)
            target = f"/fhir/{tenant.id}/{path}".rstrip("/")
            try:
                if self.chance.random() < 0.05:
                    await wire.leave(request(method, target, body, **headers), self.chance.random() * 0.01)
                    self.statuses[-1] += 1
                    continue
                reply = await wire.ask(method, target, body, **headers)
            except (NoAnswerError, NotSentError):
                self.statuses[0] += 1
                continue
            self._look(tenant, reply, guessed="guessed" in headers, asked=f"{method} {target}")

    def _look(self, tenant: Tenant, reply: Reply, *, guessed: bool, asked: str) -> None:
        self.statuses[reply.status] += 1
        said = reply.body + str(reply.headers).encode()
        for other in self.tenants:
            if other is not tenant and (other.colour.encode() in said or str(other.id).encode() in said):
                self.wrong.append(f"{asked} -> {reply.status} shows another tenant: {said[:500]!r}")
        if not guessed:
            tenant.seen |= {(kind.decode(), row_id.decode()) for kind, row_id in ID.findall(said)}
        if reply.status == 201 and reply.document.get("resourceType") == "Appointment":
            tenant.booked = [*tenant.booked[-50:], reply.document]

    def _request(self, tenant: Tenant) -> tuple[str, str, Any, dict[str, str]]:
        chance = self.chance
        body = tenant.booking(chance)
        entry = {"resource": body, "request": {"method": "POST", "url": "Appointment"}}
        kinds: list[tuple[str, str, Any, dict[str, str]]] = [
            ("GET", name(chance.choice(tenant.slots)), None, {}),
            ("GET", "Slot?_count=5&_include=Slot:schedule&_revinclude=Appointment:slot", None, {}),
            ("GET", "Slot?schedule.actor:missing=false&_total=accurate&_sort=-start", None, {}),
            ("GET", f"Appointment?status=booked&_count={chance.randint(1, 9)}", None, {}),
            ("GET", "Appointment?identifier=urn:records|the-same-everywhere", None, {}),
            ("GET", "_history?_count=5", None, {}),
            ("GET", "?_type=Slot,Schedule,Appointment&_count=4", None, {}),
            ("POST", "Appointment", body, {}),
            ("POST", "Appointment", body, {"Idempotency_Key": f"key-{chance.randint(1, 40)}"}),
            ("POST", "Appointment", {**body, "identifier": [IDENTIFIER], "status": "proposed"}, _once()),
            ("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}, {}),
            ("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": [entry, _read(tenant, chance)]}, {}),
            ("POST", "Appointment", {**body, "status": "nonsense"}, {}),
            ("DELETE", "Appointment?identifier=urn:records|the-same-everywhere", None, {}),
        ]
        if tenant.booked:
            one = chance.choice(tenant.booked)
            kinds += [
                ("PUT", name(one), {**one, "status": "cancelled"}, {}),
                ("GET", f"{name(one)}/_history", None, {}),
                ("DELETE", name(one), None, {}),
            ] * 2
        other = chance.choice([each for each in self.tenants if each is not tenant])
        foreign = chance.choice(other.slots + other.booked)
        kinds += [
            ("GET", name(foreign), None, {"guessed": "1"}),
            ("DELETE", f"{name(foreign)}", None, {"guessed": "1"}),
            ("POST", "Appointment", {**body, "slot": [{"reference": name(chance.choice(other.slots))}]},
             {"guessed": "1"}),
        ]  # fmt: skip
        return chance.choice(kinds)


def _once() -> dict[str, str]:
    return {"If_None_Exist": "identifier=urn:records|the-same-everywhere"}


def _read(tenant: Tenant, chance: random.Random) -> Resource:
    return {"request": {"method": "GET", "url": name(chance.choice(tenant.slots))}}


def _disturb(database: Database, over: Event) -> None:
    """Locks that outlast the statement time-out, and connections that end."""
    with database.connect_admin(application_name="tests") as other:
        while not over.wait(2.0):
            with other.transaction():
                other.execute("lock table slots, appointments in access exclusive mode")
                time.sleep(0.5)
            over.wait(0.5)
            other.execute("""select pg_terminate_backend(pid) from pg_stat_activity
                             where application_name = 'fhir-sched' and datname = current_database()""")


def test_three_tenants_in_a_pool_of_two_never_see_each_other(database: Database, scale: Scale) -> None:
    tenants = [Tenant() for _ in range(3)]
    with NarrowServer(database.app_url, log_level="warning") as server:
        for tenant in tenants:
            tenant.furnish(server)
        mix = Mix(server, tenants)
        over = Event()
        disturbing = Thread(target=_disturb, args=(database, over))
        disturbing.start()
        try:
            asyncio.run(mix.run(scale.mixed_requests))
        finally:
            over.set()
            disturbing.join()
    assert mix.wrong == []
    assert {200, 201, 204, 400, 404, 409, 503, -1} <= set(mix.statuses)
    assert max(mix.statuses) == 503
    assert 500 not in mix.statuses
    with database.connect_admin() as admin:
        owners = {(kind, str(row_id)): owner for kind, row_id, owner in admin.execute(_OWNERS)}
    for tenant in tenants:
        assert {owners.get(each) for each in tenant.seen} == {tenant.id}


_OWNERS = """
select 'sch', id, tenant_id from schedules
union all select 'slt', id, tenant_id from slots
union all select 'apt', id, tenant_id from appointments
union all
select case table_name when 'schedules' then 'sch' when 'slots' then 'slt' else 'apt' end, id, tenant_id from history
"""


# what is unique


class Pair:
    """A tenant `theirs` that has things, and a tenant `ours` that asks for them."""

    def __init__(self, server: Server, database: Database) -> None:
        self.theirs, self.ours = Clinic(server, database), Clinic(server, database)
        self.schedule = self.theirs.schedule()
        self.slot = self.theirs.slot(self.schedule, NINE)
        self.gone = self.theirs.slot(self.schedule, "2031-03-03T11:00:00Z")
        self.theirs.http.delete(name(self.gone))
        self.booked = self.theirs.booked(self.slot, identifier=[IDENTIFIER])
        self.waiting = self.theirs.create(appointment(status="waitlist"))


@pytest.fixture(scope="module")
def pair(server: Server, database: Database) -> Iterator[Pair]:
    """Two tenants of the same server."""
    made = Pair(server, database)
    yield made
    made.theirs.close()
    made.ours.close()


def _plain(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], str]:
    """Status, headers and body without what differs between any two answers: ids, instants."""
    # an instant may end in zeros, which are not written
    assert answer.request.method == "HEAD" or int(answer.headers.get("content-length", 0)) == len(answer.content)
    told = {"date", "x-request-id", *(["content-length"] if answer.content else [])}
    headers = sorted((key, _masked(value)) for key, value in answer.headers.items() if key not in told)
    return answer.status_code, headers, _masked(answer.text)


def _masked(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)
    text = re.sub(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", "<instant>", text)
    return re.sub(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20\d\d [0-9:]+ GMT", "<instant>", text)


GUESSES = [
    "GET Slot/{id}", "HEAD Slot/{id}", "PUT Slot/{id}", "PATCH Slot/{id}", "DELETE Slot/{id}",
    "GET Slot/{id}/_history", "GET Slot/{id}/_history/1", "GET Slot?_id={id}", "GET Slot?_id={id}&_summary=count",
    "GET Appointment?slot=Slot/{id}", "GET Appointment?slot={id}", "GET Slot?_has:Appointment:slot:_id={id}",
    "PUT Slot?_id={id}", "DELETE Slot?_id={id}", "PATCH Slot?_id={id}", "POST Appointment", "POST transaction",
]  # fmt: skip


@pytest.mark.parametrize("asked", GUESSES)
@pytest.mark.parametrize("which", ["slot", "gone"])
def test_the_id_of_another_tenant_s_row_is_like_one_that_was_never_used(pair: Pair, asked: str, which: str) -> None:
    method, path = asked.split(" ")

    def guess(fhir_id: str) -> httpx.Response:
        known = {"resourceType": "Slot", "id": fhir_id, "start": NINE, "end": "2031-03-03T10:00:00Z"}
        stored = {**known, "schedule": {"reference": name(pair.schedule)}, "status": "free"}
        if path == "Appointment":
            return pair.ours.http.post(path, json=appointment(known))
        if path == "transaction":
            entry = {"resource": stored, "request": {"method": "PUT", "url": f"Slot/{fhir_id}", "ifMatch": 'W/"1"'}}
            return pair.ours.http.post("", json={"resourceType": "Bundle", "type": path, "entry": [entry]})
        if method == "PATCH":
            patch = b'[{"op":"add","path":"/comment","value":"x"}]'
            headers = {"Content-Type": "application/json-patch+json"}
            return pair.ours.http.patch(path.format(id=fhir_id), content=patch, headers=headers)
        return pair.ours.http.request(
            method, path.format(id=fhir_id), json=stored if method in ("PUT", "POST") else None
        )

    before = pair.theirs.sql("select count(*), max(version) from slots where tenant_id = %s", pair.theirs.tenant)
    assert _plain(guess(getattr(pair, which)["id"])) == _plain(guess(f"slt-{uuid4()}"))
    assert before == pair.theirs.sql(
        "select count(*), max(version) from slots where tenant_id = %s", pair.theirs.tenant
    )


@pytest.mark.parametrize("which", ["booked", "waiting", "schedule"])
def test_so_are_the_ids_of_its_appointments_and_schedules(pair: Pair, which: str) -> None:
    theirs = getattr(pair, which)
    kind, fhir_id = theirs["resourceType"], theirs["id"]
    unused = f"{fhir_id.partition('-')[0]}-{uuid4()}"
    for method in ("GET", "PUT", "DELETE"):
        answers = [
            pair.ours.http.request(method, f"{kind}/{each}", json={**theirs, "id": each} if method == "PUT" else None)
            for each in (fhir_id, unused)
        ]
        assert _plain(answers[0]) == _plain(answers[1])
    assert pair.theirs.http.get(f"{kind}/{fhir_id}").status_code == 200


def test_a_slot_of_another_tenant_s_schedule_is_refused_like_one_of_no_schedule(pair: Pair) -> None:
    nowhere = {"resourceType": "Schedule", "id": f"sch-{uuid4()}"}
    answers = [pair.ours.http.post("Slot", json=slot(of, NINE)) for of in (pair.schedule, nowhere)]
    assert _plain(answers[0]) == _plain(answers[1])
    assert answers[0].status_code == 422


def test_an_identifier_and_if_none_exist_that_another_tenant_used_are_unused(pair: Pair) -> None:
    unused = {"system": "urn:records", "value": "never-used-anywhere"}
    assert len(unused["value"]) == len(IDENTIFIER["value"])
    answers = [
        pair.ours.http.post(
            "Appointment",
            json=appointment(identifier=[identifier], status="proposed"),
            headers={"If-None-Exist": f"identifier={identifier['system']}|{identifier['value']}"},
        )
        for identifier in (IDENTIFIER, IDENTIFIER, unused, unused)
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 201, 200]
    texts = [(_plain(each)[1], _plain(each)[2].replace(unused["value"], IDENTIFIER["value"])) for each in answers]
    assert texts[:2] == texts[2:]
    assert pair.booked["id"] not in answers[0].text + answers[1].text


def test_an_idempotency_key_that_another_tenant_used_is_unused(pair: Pair) -> None:
    key = str(uuid4())
    theirs = pair.theirs.http.post("Appointment", json=appointment(status="proposed"), headers={"Idempotency-Key": key})
    assert theirs.status_code == 201
    answers = [
        pair.ours.http.post(
            "Appointment", json=appointment(status="proposed", comment="other"), headers={"Idempotency-Key": used}
        )
        for used in (key, str(uuid4()))
    ]
    assert _plain(answers[0]) == _plain(answers[1])
    assert answers[0].status_code == 201
    assert "idempotent-replayed" not in answers[0].headers
    assert theirs.json()["id"] != answers[0].json()["id"]


def test_a_page_link_of_another_tenant_is_refused_like_a_broken_one(pair: Pair) -> None:
    for index in range(3):
        pair.theirs.slot(pair.schedule, f"2031-03-04T0{index}:00:00Z")
    (following,) = [link["url"] for link in pair.theirs.bundle("Slot?_count=1")["link"] if link["relation"] == "next"]
    query = urlsplit(following).query
    answers = [pair.ours.http.get(f"Slot?{asked}") for asked in (query, "_count=1&_page=broken")]
    assert _plain(answers[0]) == _plain(answers[1])
    assert answers[0].status_code == 400
