"""What is measured: for each scenario the HTTP requests, and the same statement as a pgbench script.

The SQL is caught where the server hands it to its connections, so it cannot differ from what the server runs. Arguments
that change from request to request become pgbench expressions of the request's number; the others stay arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from bench import shape
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import SESSION_SQL
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.create import create
from fhir_sched.interactions.read import read
from fhir_sched.interactions.search import search
from fhir_sched.resources import RESOURCES
from fhir_sched.search.parse import Parser

if TYPE_CHECKING:
    from collections.abc import Coroutine

BASE = "http://127.0.0.1/fhir"
SUBJECT = "00000000-0000-0000-0000-000000000000"
WEEKS = timedelta(days=14)
# the last day on which two weeks of slots begin
_STARTS = shape.DAYS - 16


@dataclass(frozen=True)
class Script:
    """A pgbench script and the arguments that do not change (`-D`)."""

    text: str
    constants: dict[str, str]


@dataclass(frozen=True)
class Scenario:
    """`requests(first, count)` are the raw HTTP requests; `script(first, clients)` is the same for pgbench."""

    name: str
    status: bytes
    requests: Callable[[int, int], list[bytes]]
    script: Callable[[int, int], Script]
    consumes: bool = False


class _Sent(Exception):  # noqa: N818 - no error: it carries the statement out of the interaction
    def __init__(self, fragment: Fragment) -> None:
        super().__init__()
        self.fragment = fragment


class _Catcher:
    """Stands where the connections stand, and catches the statement."""

    async def read(self, *given: object, **_: object) -> Any:
        raise _Sent(next(each for each in given if isinstance(each, Fragment)))

    write = read


def _context(tenant: str) -> Context:
    work: Any = _Catcher()
    return Context(tenant, f"{BASE}/{tenant}", work, SUBJECT, "staff")


def _caught(interaction: Coroutine[Any, Any, Answer]) -> Fragment:
    try:
        interaction.send(None)
    except _Sent as sent:
        return sent.fragment
    raise RuntimeError("the interaction sent no statement")


def _script(setup: str, fragment: Fragment, tenant: str, known: dict[str, str]) -> Script:
    """The fragment behind the session's settings, in one pipeline; `known` maps an argument's text to an expression."""
    constants: dict[str, str] = {}

    def argument(match: re.Match[str]) -> str:
        value = fragment.args[int(match[1]) - 1]
        if value is None:
            return "null"
        text = _moment(value.decode())
        if text in known:
            # where the statement does not cast its argument it is a text, but for the typed columns of an insert
            typed = fragment.text.startswith("insert") or fragment.text.startswith("::", match.end())
            return f"({known[text]})" if typed else f"({known[text]})::text"
        name = f"arg{match[1]}"
        constants[name] = value.decode()
        return f":{name}"

    session = SESSION_SQL.replace("$1", f"({known[tenant]})::text")
    statement = re.sub(r"\$(\d+)", argument, fragment.text)
    return Script(f"{setup}\\startpipeline\n{session};\n{statement};\n\\endpipeline\n", constants)


def _moment(text: str) -> str:
    """Moments in one form, so that an argument is recognised however the server writes it."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return moment.isoformat() if moment.tzinfo else text


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n\r\n".encode()


def _query_of(tenant: str, path: str) -> Fragment:
    parts = urlsplit(path)
    resource = RESOURCES[parts.path.rsplit("/", 1)[1]]
    context = _context(tenant)
    query = Parser(RESOURCES, context.base, tenant).query(resource, parse_qsl(parts.query), strict=True)
    return _caught(search(context, query))


# read


def _read_path(number: int) -> str:
    appointment = number * 7919 % shape.APPOINTMENTS
    tenant = shape.key("t", shape.tenant_of(shape.booked(appointment) // shape.SLOTS_EACH))
    return f"/fhir/{tenant}/Appointment/apt-{shape.key('a', appointment)}"


def _read_script(first: int, clients: int) -> Script:
    tenant, row_id = shape.key("t", shape.tenant_of(0)), shape.key("a", 0)
    fragment = _caught(read(_context(tenant), RESOURCES["Appointment"], f"apt-{row_id}"))
    setup = (
        f"\\set appointment random(0, {shape.APPOINTMENTS - 1})\n"
        f"\\set tenant (:appointment * 4 + 3) / {shape.SLOTS_EACH} % {shape.TENANTS}\n"
    )
    known = {tenant: shape.key_sql("t", ":tenant"), row_id: shape.key_sql("a", ":appointment")}
    return _script(setup, fragment, tenant, known)


READ = Scenario(
    "read",
    b"200",
    lambda first, count: [_get(_read_path(number)) for number in range(first, first + count)],
    _read_script,
)


# search: one schedule, and one practitioner's schedules


def _window(schedule: int, day: int, who: str) -> tuple[str, str]:
    tenant = shape.key("t", shape.tenant_of(schedule))
    low = shape.FIRST_DAY + timedelta(days=day)
    moments = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (low, low + WEEKS)]
    asked = f"{who}&status=free&start=ge{moments[0]}&start=lt{moments[1]}&_sort=start&_count=50"
    return tenant, f"/fhir/{tenant}/Slot?{asked}"


def _by_schedule(schedule: int, day: int) -> tuple[str, str]:
    return _window(schedule, day, f"schedule=Schedule/sch-{shape.key('s', schedule)}")


def _by_actor(schedule: int, day: int) -> tuple[str, str]:
    return _window(schedule, day, f"schedule.actor=Practitioner/{shape.key('d', shape.doctor_of(schedule))}")


def _window_scenario(name: str, path: Callable[[int, int], tuple[str, str]]) -> Scenario:
    def requests(first: int, count: int) -> list[bytes]:
        numbers = range(first, first + count)
        return [_get(path(number * 1237 % shape.SCHEDULES, number * 31 % _STARTS)[1]) for number in numbers]

    def script(first: int, clients: int) -> Script:
        schedule, day = 12, 5
        tenant, asked = path(schedule, day)
        low = shape.FIRST_DAY + timedelta(days=day)
        setup = (
            f"\\set schedule random(0, {shape.SCHEDULES - 1})\n"
            f"\\set day random(0, {_STARTS - 1})\n"
            f"\\set tenant :schedule % {shape.TENANTS}\n"
            f"\\set doctor :schedule % {shape.SCHEDULES // 2}\n"
            f"\\set low {int(shape.FIRST_DAY.timestamp())} + :day * 86400\n"
            f"\\set high :low + {int(WEEKS.total_seconds())}\n"
        )
        known = {
            tenant: shape.key_sql("t", ":tenant"),
            shape.key("s", schedule): shape.key_sql("s", ":schedule"),
            shape.key("d", shape.doctor_of(schedule)): shape.key_sql("d", ":doctor"),
            low.isoformat(): "to_timestamp(:low)",
            (low + WEEKS).isoformat(): "to_timestamp(:high)",
        }
        return _script(setup, _query_of(tenant, asked), tenant, known)

    return Scenario(name, b"200", requests, script)


SEARCH = _window_scenario("search", _by_schedule)
SEARCH_ACTOR = _window_scenario("search_actor", _by_actor)


# a long search, at its beginning and far inside

LONG_TENANT = shape.key("t", 0)
LONG_SEARCH = f"/fhir/{LONG_TENANT}/Slot?status=free&_sort=start&_count=50"


def page(name: str, path: str) -> Scenario:
    """A page of the long search: `path` is its first page, or the `next` link of another."""

    def script(first: int, clients: int) -> Script:
        return _script("", _query_of(LONG_TENANT, path), LONG_TENANT, {LONG_TENANT: f"'{LONG_TENANT}'::uuid"})

    return Scenario(name, b"200", lambda _, count: [_get(path)] * count, script)


# booking


def booking(slot: int) -> dict[str, Any]:
    """An Appointment as a portal sends it."""
    schedule = slot // shape.SLOTS_EACH
    return {
        "resourceType": "Appointment",
        "status": "booked",
        "slot": [{"reference": f"Slot/slt-{shape.key('n', slot)}"}],
        "start": f"{shape.start_of(slot):%Y-%m-%dT%H:%M:%SZ}",
        "end": f"{shape.end_of(slot):%Y-%m-%dT%H:%M:%SZ}",
        "participant": [
            {"actor": {"reference": f"Patient/{shape.key('p', slot % shape.PATIENTS)}"}, "status": "accepted"},
            {"actor": {"reference": f"Practitioner/{shape.key('d', shape.doctor_of(schedule))}"}, "status": "accepted"},
        ],
    }


def _book_requests(first: int, count: int) -> list[bytes]:
    found = []
    for turn in range(first, first + count):
        slot = shape.free(turn)
        tenant = shape.key("t", shape.tenant_of(slot // shape.SLOTS_EACH))
        body = json.dumps(booking(slot), separators=(",", ":")).encode()
        head = (
            f"POST /fhir/{tenant}/Appointment HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


def _book_script(first: int, clients: int) -> Script:
    slot = shape.free(first)
    schedule = slot // shape.SLOTS_EACH
    tenant = shape.key("t", shape.tenant_of(schedule))
    fragment = _caught(create(_context(tenant), RESOURCES["Appointment"], booking(slot)))
    # `k` counts a client's own turns: no slot comes to two clients
    setup = (
        f"\\set k :k + 1\n\\set turn {first} + :k * {clients} + :client_id\n{shape.FREE_PGBENCH}"
        f"\\set tenant :schedule % {shape.TENANTS}\n"
        f"\\set doctor :schedule % {shape.SCHEDULES // 2}\n"
        f"\\set patient :slot % {shape.PATIENTS}\n"
    )
    known = {
        tenant: shape.key_sql("t", ":tenant"),
        shape.key("n", slot): shape.key_sql("n", ":slot"),
        shape.key("p", slot % shape.PATIENTS): shape.key_sql("p", ":patient"),
        shape.key("d", shape.doctor_of(schedule)): shape.key_sql("d", ":doctor"),
        shape.start_of(slot).isoformat(): shape.start_sql(":slot"),
        shape.end_of(slot).isoformat(): shape.end_sql(":slot"),
    }
    for value in fragment.args:
        _require_known(value, known)
    script = _script(setup, fragment, tenant, known)
    return Script(script.text, {**script.constants, "k": "-1"})


def _require_known(value: bytes | None, known: dict[str, str]) -> None:
    """RuntimeError when an argument hides an id or a time of this one booking inside a longer text."""
    text = "" if value is None else value.decode()
    if _moment(text) not in known and any(name in text or name[:16] in text for name in known):
        raise RuntimeError(f"the argument {text!r} changes with every booking, and this benchmark does not know how")


BOOK = Scenario("book", b"201", _book_requests, _book_script, consumes=True)


def percent_encoded(link: str, public: str) -> str:
    """The path and query of a link in a Bundle, as they go into a request line."""
    return quote(link.removeprefix(public), safe="/?&=%:+,;@!$'()*~-._|")


def next_link(bundle: dict[str, Any]) -> str:
    """The URL of the next page; KeyError when there is none."""
    links: Iterable[dict[str, str]] = bundle["link"]
    return {link["relation"]: link["url"] for link in links}["next"]
