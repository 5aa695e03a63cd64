"""A load of random bookings by several clients at once, a program of its own that notes everything in a ledger.

Run as `python -m faults.load PLAN LEDGER`; PLAN is the JSON of a `Plan`. Each line on standard input is a command:
`work` sets the clients to work, `rest` lets each finish what it is about. Both are answered by a line, the second with
the number of operations so far. The server may die under it at any time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from faults.ledger import Attempt, End, Ledger, Operation, Version
from faults.wire import NoAnswerError, NotSentError, Reply, Wire

PATIENTS = UUID("00000000-0000-4000-8000-00000000fa17")
REPEATS_S = 15.0
"""How long a client repeats a request under an Idempotency-Key until it knows what became of it."""

Resource = dict[str, Any]


@dataclass(frozen=True)
class Opening:
    """A slot: its id, its schedule's, its times and its practitioner's reference."""

    id: str
    schedule: str
    start: str
    end: str
    practitioner: str


@dataclass(frozen=True)
class Plan:
    """Where the server is, and what can be booked there."""

    host: str
    port: int
    tenant: str
    seed: int
    clients: int
    openings: tuple[Opening, ...]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan in a file."""
        given = json.loads(path.read_text(encoding="utf-8"))
        given["openings"] = tuple(Opening(**each) for each in given["openings"])
        return cls(**given)


@dataclass
class Desk:
    """What the clients share: `known` appointments with the version last seen, None where nobody can say."""

    plan: Plan
    ledger: Ledger
    known: dict[str, int | None] = field(default_factory=dict)
    working: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0


class Client:
    """One client: chooses an operation, does it, notes it, and chooses the next."""

    def __init__(self, desk: Desk, number: int) -> None:
        self.desk = desk
        self.number = number
        self.random = random.Random(f"{desk.plan.seed} {number}")
        self.wire = Wire(desk.plan.host, desk.plan.port)
        self.resting = asyncio.Event()
        self.serial = 0

    async def run(self) -> None:
        """Work whenever the desk does."""
        steps = [
            (self.book, 26), (self.several, 10), (self.unslotted, 6), (self.cancel, 22), (self.reschedule, 12),
            (self.delete, 5), (self.transaction, 8), (self.once, 14), (self.look, 6),
        ]  # fmt: skip
        actions, weights = zip(*steps, strict=True)
        while True:
            if not self.desk.working.is_set():
                self.resting.set()
                await self.desk.working.wait()
                self.resting.clear()
            (action,) = self.random.choices(actions, weights)
            await action()

    # what a client does

    async def book(self) -> None:
        """One slot."""
        await self._post("book", self._appointment(self._openings(1)))

    async def several(self) -> None:
        """Two or three slots in a row by one appointment."""
        await self._post("several", self._appointment(self._openings(self.random.choice((2, 3)))))

    async def unslotted(self) -> None:
        """A practitioner's time without a slot."""
        (opening,) = self._openings(1)
        moved = datetime.fromisoformat(opening.start) + timedelta(minutes=self.random.randint(-9, 9))
        made = self._appointment([opening])
        del made["slot"]
        made |= {"start": moved.isoformat(), "end": (moved + timedelta(minutes=10)).isoformat()}
        await self._post("unslotted", made)

    async def once(self) -> None:
        """A booking or a patch under an Idempotency-Key, repeated until its end is known and at times beyond."""
        made = self._appointment(self._openings(self.random.choice((1, 1, 2))))
        bundled = self.random.random() < 0.3
        others = [self._appointment(self._openings(1))] if bundled else []
        bodies = [made, *others]
        operation = self._operation("once", bodies, key=f"key-{self.number}-{self.serial}")
        path, body = ("", _transaction(*map(_creating, bodies))) if bundled else ("Appointment", made)
        until = time.monotonic() + REPEATS_S
        again = self.random.random() < 0.4
        while time.monotonic() < until:
            reply = await self._ask(operation, "POST", path, body, Idempotency_Key=operation.key)
            open_end = operation.end is End.UNKNOWN or reply is None
            if not open_end and not again:
                break
            again = again and open_end
            await asyncio.sleep(0.02 if open_end else 0)

    async def cancel(self) -> None:
        """One of the known appointments, by PUT, JSON Patch or a patch under a key."""
        chosen = self._one_known()
        if chosen is None:
            return await self.book()
        fhir_id, version = chosen
        if self.random.random() < 0.5:
            made = {**self._appointment(self._openings(1)), "id": fhir_id, "status": "cancelled"}
            del made["slot"]
            operation = self._operation("cancel", [made], start=False)
            await self._change(operation, "PUT", fhir_id, version, made)
        else:
            operation = self._operation("cancel", [{}], start=False)
            patch = [
                {"op": "replace", "path": "/status", "value": "cancelled"},
                {"op": "add", "path": "/description", "value": operation.marks[0]},
            ]
            await self._change(operation, "PATCH", fhir_id, version, patch, Content_Type="application/json-patch+json")
        return None

    async def reschedule(self) -> None:
        """One of the known appointments to other slots."""
        chosen = self._one_known()
        if chosen is None:
            return await self.book()
        made = {**self._appointment(self._openings(self.random.choice((1, 1, 2)))), "id": chosen[0]}
        operation = self._operation("reschedule", [made], start=False)
        await self._change(operation, "PUT", *chosen, made)
        return None

    async def delete(self) -> None:
        """One of the known appointments for good."""
        chosen = self._one_known()
        if chosen is None:
            return
        fhir_id, version = chosen
        operation = self._operation("delete", [], deletes=(fhir_id,))
        reply = await self._ask(operation, "DELETE", f"Appointment/{fhir_id}", **_if_match(version))
        if reply is not None and reply.status < 500:
            self.desk.known.pop(fhir_id, None)
        else:
            self.desk.known[fhir_id] = None

    async def transaction(self) -> None:
        """Two bookings, and at times a cancellation, all or nothing."""
        bodies = [self._appointment(self._openings(1)) for _ in range(2)]
        entries = [_creating(each) for each in bodies]
        chosen = self._one_known() if self.random.random() < 0.5 else None
        if chosen is not None:
            body = {**self._appointment(self._openings(1)), "id": chosen[0], "status": "cancelled"}
            del body["slot"]
            bodies.append(body)
            request = {"method": "PUT", "url": f"Appointment/{chosen[0]}"}
            request |= {} if chosen[1] is None else {"ifMatch": f'W/"{chosen[1]}"'}
            entries.append({"resource": body, "request": request})
        operation = self._operation("transaction", bodies, start=False)
        for entry, body in zip(entries, bodies, strict=True):
            entry["resource"] = body
        self.desk.ledger.start(operation)
        reply = await self._ask(operation, "POST", "", _transaction(*entries))
        if chosen is not None and (reply is None or reply.status >= 500):
            self.desk.known[chosen[0]] = None

    async def look(self) -> None:
        """Who holds a slot: how a client finds bookings whose answer never came."""
        (opening,) = self._openings(1)
        operation = self._operation("look", [])
        reply = await self._ask(operation, "GET", f"Appointment?slot=Slot/{opening.id}&status=booked")
        if reply is not None and reply.status == 200:
            for entry in reply.document.get("entry", ()):
                self._learn(_version(entry["resource"]))

    # how it is done

    def _openings(self, count: int) -> list[Opening]:
        """That many slots in a row of one schedule."""
        openings = self.desk.plan.openings
        while True:
            first = self.random.randrange(len(openings) - count + 1)
            row = list(openings[first : first + count])
            if len({opening.schedule for opening in row}) == 1:
                return row

    def _appointment(self, openings: list[Opening]) -> Resource:
        self.serial += 1
        actors = [f"Patient/{uuid5(PATIENTS, f'{self.number} {self.serial}')}", openings[0].practitioner]
        return {
            "resourceType": "Appointment",
            "status": "booked",
            "slot": [{"reference": f"Slot/{opening.id}"} for opening in openings],
            "start": openings[0].start,
            "end": openings[-1].end,
            "participant": [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors],
        }

    def _operation(
        self, kind: str, bodies: list[Resource], *, key: str = "", deletes: tuple[str, ...] = (), start: bool = True
    ) -> Operation:
        """A new operation; each body gets its mark."""
        self.desk.count += 1
        number = f"{self.number}-{self.desk.count}"
        marks = tuple(f"{number}/{index}" for index in range(len(bodies)))
        for body, mark in zip(bodies, marks, strict=True):
            body["description"] = mark
        operation = Operation(number, kind, marks, deletes, key)
        if start:
            self.desk.ledger.start(operation)
        return operation

    def _one_known(self) -> tuple[str, int | None] | None:
        if not self.desk.known:
            return None
        return self.random.choice(list(self.desk.known.items()))

    async def _post(self, kind: str, body: Resource) -> None:
        await self._ask(self._operation(kind, [body]), "POST", "Appointment", body)

    async def _change(
        self, operation: Operation, method: str, fhir_id: str, version: int | None, body: Any, **headers: str
    ) -> None:
        self.desk.ledger.start(operation)
        given = _if_match(version) if self.random.random() < 0.7 else {}
        reply = await self._ask(operation, method, f"Appointment/{fhir_id}", body, **given, **headers)
        if reply is None or reply.status >= 500:
            self.desk.known[fhir_id] = None
        elif reply.status in (404, 405, 410):
            self.desk.known.pop(fhir_id, None)
        elif reply.status == 412:
            self.desk.known[fhir_id] = None

    async def _ask(
        self, operation: Operation, method: str, path: str, body: Any = None, **headers: str
    ) -> Reply | None:
        """The answer, None where none came; noted either way."""
        began = time.monotonic()
        reply, status = None, 0
        try:
            target = f"/fhir/{self.desk.plan.tenant}/{path}".rstrip("/")
            reply = await self.wire.ask(method, target, body, **headers)
            status = reply.status
        except NotSentError:
            status = -1
        except NoAnswerError:
            status = 0
        made = _made(reply) if reply is not None and operation.marks else ()
        retry_after = "" if reply is None else reply.headers.get("retry-after", "")
        self.desk.ledger.attempted(operation, Attempt(began, time.monotonic(), status, made, retry_after))
        for version in made:
            self._learn(version)
        if status <= 0 or status >= 500:
            await asyncio.sleep(0.03)
        return reply

    def _learn(self, version: Version) -> None:
        fhir_id, number = version
        before = self.desk.known.get(fhir_id)
        if before is None or before < number:
            self.desk.known[fhir_id] = number


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If_Match": f'W/"{version}"'}


def _creating(body: Resource) -> Resource:
    return {"resource": body, "request": {"method": "POST", "url": "Appointment"}}


def _transaction(*entries: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def _version(resource: Resource) -> Version:
    return resource["id"], int(resource["meta"]["versionId"])


def _made(reply: Reply) -> tuple[Version, ...]:
    """The versions that a success names."""
    if reply.status not in (200, 201):
        return ()
    document = reply.document
    if document["resourceType"] == "Bundle":
        return tuple(_version(entry["resource"]) for entry in document["entry"])
    return (_version(document),)


async def main(plan: Plan, ledger: Ledger) -> None:
    """Obey standard input until it ends."""
    desk = Desk(plan, ledger)
    clients = [Client(desk, number) for number in range(plan.clients)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while command := (await commands.readline()).decode().strip():
        failed = [task for task in tasks if task.done()]
        if failed:
            await failed[0]
        if command == "work":
            desk.working.set()
        else:
            desk.working.clear()
            await asyncio.gather(*(client.resting.wait() for client in clients))
            ledger.flush()
        print(desk.count, flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Plan.read(Path(sys.argv[1])), Ledger(Path(sys.argv[2]))))
