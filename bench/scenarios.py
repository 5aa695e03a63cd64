"""What is measured: for each scenario the HTTP requests, and the same statement as a pgbench script.

The SQL is caught where the server hands it to its connections, so it cannot differ from what the server runs. Arguments
that change from request to request become pgbench expressions of the request's number; the others stay arguments.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from bench import shape
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import SESSION_SQL
from fhir_sched.http.app import App
from fhir_sched.settings import load

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


class _Sent(BaseException):
    def __init__(self, fragment: Fragment) -> None:
        super().__init__()
        self.fragment = fragment


class _Catcher:
    """Stands where the connections stand, and catches the first statement."""

    async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> Any:
        raise _Sent(fragments[0])

    write = read

    def measured(self) -> Any:
        """Nothing is measured here; the application only wants to know whom to ask."""
        raise RuntimeError("there are no connections to measure")


def caught(raw: bytes) -> Fragment:
    """The statement that the application runs for a raw HTTP request."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "method": method.decode(),
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)],
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        raise RuntimeError(f"the application answered without a statement: {message}")

    lanes: Any = _Catcher()
    try:
        asyncio.run(App(load(auth="open"), lanes)(scope, receive, send))
    except _Sent as sent:
        return sent.fragment
    raise RuntimeError("the application sent no statement")


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


# read


def _read_path(number: int) -> str:
    appointment = number * 7919 % shape.APPOINTMENTS
    tenant = shape.key("t", shape.tenant_of(shape.booked(appointment) // shape.SLOTS_EACH))
    return f"/fhir/{tenant}/Appointment/apt-{shape.key('a', appointment)}"


def _read_script(first: int, clients: int) -> Script:
    tenant, row_id = shape.key("t", shape.tenant_of(0)), shape.key("a", 0)
    fragment = caught(_get(_read_path(0)))
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
        return _script(setup, caught(_get(asked)), tenant, known)

    return Scenario(name, b"200", requests, script)


SEARCH = _window_scenario("search", _by_schedule)
SEARCH_ACTOR = _window_scenario("search_actor", _by_actor)


# a long search, at its beginning and far inside

LONG_TENANT = shape.key("t", 0)
LONG_SEARCH = f"/fhir/{LONG_TENANT}/Slot?status=free&_sort=start&_count=50"


def page(name: str, path: str) -> Scenario:
    """A page of the long search: `path` is its first page, or the `next` link of another."""

    def script(first: int, clients: int) -> Script:
        return _script("", caught(_get(path)), LONG_TENANT, {LONG_TENANT: f"'{LONG_TENANT}'::uuid"})

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
    fragment = caught(_book_requests(first, 1)[0])
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
