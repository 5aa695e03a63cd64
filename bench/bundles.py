"""Scenarios whose body or answer is a Bundle: a transaction of 500 bookings, a page of history, a `_revinclude` page.

Beside each is the SQL that it runs: a transaction's 500 statements in one pipeline, each statement of a page in a round
trip of its own. Like the others they are caught where the server hands them to its connections.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bench import shape
from bench.catching import Script, application_scope, caught, get, post, scripted, session
from bench.scenarios import LONG_TENANT, WEEKS, Scenario, booking, placed
from fhir_sched.db.lanes import Lanes
from fhir_sched.http.app import App
from fhir_sched.settings import load

if TYPE_CHECKING:
    from fhir_sched.db.fragment import Fragment

ENTRIES = 500
# Ten transactions of ten tenants share a run of turns: turns that differ by ten are one tenant's.
_BLOCK = ENTRIES * shape.TENANTS


def _turns(first: int, number: int) -> list[int]:
    """The turns of the number-th transaction."""
    block, tenant = divmod(number, shape.TENANTS)
    start = first + block * _BLOCK + tenant
    return list(range(start, start + _BLOCK, shape.TENANTS))


def _transaction(first: int, number: int) -> bytes:
    slots = [shape.free(turn) for turn in _turns(first, number)]
    tenant = shape.key("t", shape.tenant_of(slots[0] // shape.SLOTS_EACH))
    entry = [{"resource": booking(slot), "request": {"method": "POST", "url": "Appointment"}} for slot in slots]
    return post(f"/fhir/{tenant}", {"resourceType": "Bundle", "type": "transaction", "entry": entry})


def _transaction_script(first: int, clients: int) -> Script:
    slot = shape.free(first)
    schedule = slot // shape.SLOTS_EACH
    tenant = shape.key("t", shape.tenant_of(schedule))
    fragment = caught(_transaction(first, 0))
    listed = fragment.text.partition("(tenant_id")[2].partition(")")[0].split(", ")
    new_id = (fragment.args[listed.index("id")] or b"").decode()
    known = {**placed(slot), new_id: "gen_random_uuid()"}
    one = scripted("", fragment, tenant, known)
    statement = one.text.partition("\\startpipeline\n")[2].partition(";\n")[2].removesuffix("\\endpipeline\n")
    each = (
        f"{shape.FREE_PGBENCH}\\set tenant :schedule % {shape.TENANTS}\n"
        f"\\set doctor :schedule % {shape.SCHEDULES // 2}\n\\set patient :slot % {shape.PATIENTS}\n"
    )
    head = (
        f"\\set k :k + 1\n\\set n :k * {clients} + :client_id\n"
        f"\\set turn {first} + :n / {shape.TENANTS} * {_BLOCK} + :n % {shape.TENANTS}\n{each}"
    )
    entry = f"{statement}\\set turn :turn + {shape.TENANTS}\n{each}"
    text = f"{head}\\startpipeline\n{session(known[tenant])};\n{entry * ENTRIES}\\endpipeline\n"
    return Script(text, {**one.constants, "k": "-1"})


TRANSACTION = Scenario(
    "transaction",
    b"200",
    lambda first, count: [_transaction(first, number) for number in range(count)],
    _transaction_script,
    consumes=ENTRIES,
    connections=4,
)


def _history_path(tenant: str) -> str:
    return f"/fhir/{tenant}/Slot/_history?_count=50"


def _history_script(first: int, clients: int) -> Script:
    setup = f"\\set tenant random(0, {shape.TENANTS - 1})\n"
    return scripted(
        setup, caught(get(_history_path(LONG_TENANT))), LONG_TENANT, {LONG_TENANT: shape.key_sql("t", ":tenant")}
    )


HISTORY = Scenario(
    "history",
    b"200",
    lambda first, count: [get(_history_path(shape.key("t", n % shape.TENANTS))) for n in range(first, first + count)],
    _history_script,
)


def revinclude(url: str) -> Scenario:
    """50 busy slots of a schedule with their appointments; what the second statement asks is seen at that database."""
    schedule = 12
    tenant = shape.key("t", shape.tenant_of(schedule))
    low = shape.FIRST_DAY + timedelta(days=5)
    moments = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (low, low + WEEKS)]
    path = (
        f"/fhir/{tenant}/Slot?schedule=Schedule/sch-{shape.key('s', schedule)}&status=busy&start=ge{moments[0]}"
        f"&start=lt{moments[1]}&_sort=start&_count=50&_revinclude=Appointment:slot"
    )
    trips = asyncio.run(_recorded(get(path), url))
    if len(trips) != 2:
        raise RuntimeError(f"a page with _revinclude is two round trips, not {len(trips)}")

    def both(first: int, clients: int) -> Script:
        known = {tenant: f"'{tenant}'::uuid"}
        first_trip, second_trip = (
            scripted("", fragment, tenant, known, prefix) for fragment, prefix in zip(trips, "ab", strict=True)
        )
        return Script(first_trip.text + second_trip.text, {**first_trip.constants, **second_trip.constants})

    return Scenario("revinclude", b"200", lambda _, count: [get(path)] * count, both)


async def _recorded(raw: bytes, url: str) -> list[Fragment]:
    """The statements that a request runs at that database, each a round trip."""
    seen: list[Fragment] = []

    class Recording(Lanes):
        async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> Any:
            seen.extend(fragments)
            return await super().read(tenant, *fragments, slow=slow)

    answer: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        answer.append(message)

    lanes = Recording(url)
    await lanes.open()
    try:
        await App(load(auth="open"), lanes)(application_scope(raw), receive, send)
    finally:
        await lanes.close()
    body = json.loads(answer[1]["body"])
    modes = [entry["search"]["mode"] for entry in body["entry"]]
    if (modes.count("match"), modes.count("include")) != (50, 50):
        raise RuntimeError(f"the page holds {modes.count('match')} slots and {modes.count('include')} appointments")
    return seen
