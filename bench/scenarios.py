"""What is measured: for each scenario the HTTP requests, and the same statement (`catching`) as a pgbench script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from bench import shape
from bench.catching import Script, caught, get, moment_of, post, scripted

WEEKS = timedelta(days=14)
# the last day on which two weeks of slots begin
_STARTS = shape.DAYS - 16


@dataclass(frozen=True)
class Scenario:
    """`requests(first, count)` are the raw HTTP requests; `script(first, clients)` is the same for pgbench.

    `consumes` is how many free slots one of them takes, `connections` how many are under way at once.
    """

    name: str
    status: bytes
    requests: Callable[[int, int], list[bytes]]
    script: Callable[[int, int], Script]
    consumes: int = 0
    connections: int = 32


# read


def _read_path(number: int) -> str:
    appointment = number * 7919 % shape.APPOINTMENTS
    tenant = shape.key("t", shape.tenant_of(shape.booked(appointment) // shape.SLOTS_EACH))
    return f"/fhir/{tenant}/Appointment/apt-{shape.key('a', appointment)}"


def _read_script(first: int, clients: int) -> Script:
    tenant, row_id = shape.key("t", shape.tenant_of(0)), shape.key("a", 0)
    fragment = caught(get(_read_path(0)))
    setup = (
        f"\\set appointment random(0, {shape.APPOINTMENTS - 1})\n"
        f"\\set tenant (:appointment * 4 + 3) / {shape.SLOTS_EACH} % {shape.TENANTS}\n"
    )
    known = {tenant: shape.key_sql("t", ":tenant"), row_id: shape.key_sql("a", ":appointment")}
    return scripted(setup, fragment, tenant, known)


READ = Scenario(
    "read",
    b"200",
    lambda first, count: [get(_read_path(number)) for number in range(first, first + count)],
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
        return [get(path(number * 1237 % shape.SCHEDULES, number * 31 % _STARTS)[1]) for number in numbers]

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
        return scripted(setup, caught(get(asked)), tenant, known)

    return Scenario(name, b"200", requests, script)


SEARCH = _window_scenario("search", _by_schedule)
SEARCH_ACTOR = _window_scenario("search_actor", _by_actor)


# $find: the first 20 proposals of a pool of 50 practitioners within two weeks

POOL = 50
_PRACTICE = 3


def _find(day: int) -> bytes:
    low = shape.FIRST_DAY + timedelta(days=day)
    given: list[dict[str, Any]] = [
        {"name": name, "valueDateTime": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}
        for name, moment in (("start", low), ("end", low + WEEKS))
    ]
    given += [
        {"name": "practitioner", "valueReference": {"reference": f"Practitioner/{shape.key('d', doctor)}"}}
        for doctor in range(_PRACTICE, _PRACTICE + POOL * shape.TENANTS, shape.TENANTS)
    ]
    path = f"/fhir/{shape.key('t', _PRACTICE)}/Appointment/$find?_count=20"
    return post(path, {"resourceType": "Parameters", "parameter": given})


def _find_script(first: int, clients: int) -> Script:
    day, tenant = 5, shape.key("t", _PRACTICE)
    low = shape.FIRST_DAY + timedelta(days=day)
    setup = (
        f"\\set low {int(shape.FIRST_DAY.timestamp())} + random(0, {_STARTS - 1}) * 86400\n"
        f"\\set high :low + {int(WEEKS.total_seconds())}\n"
    )
    known = {
        tenant: f"'{tenant}'::uuid",
        low.isoformat(): "to_timestamp(:low)",
        (low + WEEKS).isoformat(): "to_timestamp(:high)",
    }
    return scripted(setup, caught(_find(day)), tenant, known)


FIND = Scenario(
    "find",
    b"200",
    lambda first, count: [_find(number * 31 % _STARTS) for number in range(first, first + min(count, 1000))],
    _find_script,
)


# a long search, at its beginning and far inside

LONG_TENANT = shape.key("t", 0)
LONG_SEARCH = f"/fhir/{LONG_TENANT}/Slot?status=free&_sort=start&_count=50"


def page(name: str, path: str) -> Scenario:
    """A page of the long search: `path` is its first page, or the `next` link of another."""

    def script(first: int, clients: int) -> Script:
        return scripted("", caught(get(path)), LONG_TENANT, {LONG_TENANT: f"'{LONG_TENANT}'::uuid"})

    return Scenario(name, b"200", lambda _, count: [get(path)] * count, script)


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
        found.append(post(f"/fhir/{tenant}/Appointment", booking(slot)))
    return found


def placed(slot: int) -> dict[str, str]:
    """What changes from booking to booking, as expressions of pgbench's `slot`, `tenant`, `doctor` and `patient`."""
    schedule = slot // shape.SLOTS_EACH
    return {
        shape.key("t", shape.tenant_of(schedule)): shape.key_sql("t", ":tenant"),
        shape.key("n", slot): shape.key_sql("n", ":slot"),
        shape.key("p", slot % shape.PATIENTS): shape.key_sql("p", ":patient"),
        shape.key("d", shape.doctor_of(schedule)): shape.key_sql("d", ":doctor"),
        shape.start_of(slot).isoformat(): shape.start_sql(":slot"),
        shape.end_of(slot).isoformat(): shape.end_sql(":slot"),
    }


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
    known = placed(slot)
    for value in fragment.args:
        _require_known(value, known)
    script = scripted(setup, fragment, tenant, known)
    return Script(script.text, {**script.constants, "k": "-1"})


def _require_known(value: bytes | None, known: dict[str, str]) -> None:
    """RuntimeError when an argument hides an id or a time of this one booking inside a longer text."""
    text = "" if value is None else value.decode()
    if moment_of(text) not in known and any(name in text or name[:16] in text for name in known):
        raise RuntimeError(f"the argument {text!r} changes with every booking, and this benchmark does not know how")


BOOK = Scenario("book", b"201", _book_requests, _book_script, consumes=1)


def percent_encoded(link: str, public: str) -> str:
    """The path and query of a link in a Bundle, as they go into a request line."""
    return quote(link.removeprefix(public), safe="/?&=%:+,;@!$'()*~-._|")


def next_link(bundle: dict[str, Any]) -> str:
    """The URL of the next page; KeyError when there is none."""
    links: Iterable[dict[str, str]] = bundle["link"]
    return {link["relation"]: link["url"] for link in links}["next"]
