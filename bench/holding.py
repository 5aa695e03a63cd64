"""How fast a time is held and then booked, by `$hold` and `$book`, beside the same two changes by SQL.

One client after the other on one connection each: what is measured is how long a patient waits, not a crowd. The SQL
inserts the pending appointment with the end of its hold, and confirms it, each in a transaction of the server's role.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from bench import shape
from fhir_sched.scheduling.proposal import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.tokens import Tokens

PAIRS: Final = 200
ROUNDS: Final = 5
_HOLD: Final = """
insert into appointments (tenant_id, patient_id, slot_id, provider_id, status, start_at, end_at, created_by,
    hold_expires_at)
values (%(tenant)s, %(patient)s, %(slot)s, %(doctor)s, 'pending', %(start)s, %(end)s, %(tenant)s,
    now() + interval '5 minutes')
returning id"""
_BOOK: Final = "update appointments set status = 'booked' where tenant_id = %s and id = %s"
_SESSION: Final = "select set_config('app.tenant_id', %s, true), set_config('app.writer', 'fhir', true)"


def measure(url: str, port: int, first: int, tokens: Tokens | None) -> dict[str, float]:
    """Pairs a second of both, and the ratio taken within a round; free slots from the turn `first` on are used up."""
    turns = iter(range(first, first + 2 * PAIRS * (ROUNDS + 1)))
    web = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with psycopg.connect(url, autocommit=True) as connection:

        def by_http(turn: int) -> None:
            _over_http(web, turn, tokens)

        def by_sql(turn: int) -> None:
            _in_sql(connection, turn)

        rounds = [(_rate(by_http, turns), _rate(by_sql, turns)) for _ in range(ROUNDS + 1)][1:]
    web.close()
    return {
        "pairs_per_s": round(statistics.median(over for over, _ in rounds), 1),
        "sql_pairs_per_s": round(statistics.median(inside for _, inside in rounds), 1),
        "ratio": round(statistics.median(over / inside for over, inside in rounds), 3),
    }


def _rate(pair: Callable[[int], None], turns: Any) -> float:
    started = time.perf_counter()
    for _ in range(PAIRS):
        pair(next(turns))
    return PAIRS / (time.perf_counter() - started)


def _names(turn: int) -> dict[str, Any]:
    slot = shape.free(turn)
    schedule = slot // shape.SLOTS_EACH
    start = shape.start_of(slot)
    return {
        "tenant": shape.key("t", shape.tenant_of(schedule)),
        "slot": shape.key("n", slot),
        "patient": shape.key("p", slot % shape.PATIENTS),
        "doctor": shape.key("d", shape.doctor_of(schedule)),
        "start": start,
        "end": start + timedelta(minutes=shape.MINUTES),
    }


def _over_http(web: http.client.HTTPConnection, turn: int, tokens: Tokens | None) -> None:
    named = _names(turn)
    base = f"/fhir/{named['tenant']}/Appointment"
    headers = tokens.of(base) if tokens else {}
    held = _invoke(web, f"{base}/$hold", Proposal(named["slot"], (), f"Patient/{named['patient']}").id, headers)
    _invoke(web, f"{base}/$book", held, headers)


def _invoke(web: http.client.HTTPConnection, path: str, fhir_id: str, headers: dict[str, str]) -> str:
    """The id of the appointment that the operation answers. RuntimeError for any other answer."""
    given = {"name": "appointment-reference", "valueReference": {"reference": f"Appointment/{fhir_id}"}}
    body = json.dumps({"resourceType": "Parameters", "parameter": [given]})
    accepted = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
    web.request("POST", path, body, {**accepted, **headers})
    answer = web.getresponse()
    found = json.loads(answer.read())
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path} answered {answer.status}: {found}")
    return str(found["entry"][0]["resource"]["id"])


def _in_sql(connection: psycopg.Connection[tuple[Any, ...]], turn: int) -> None:
    named = _names(turn)
    with connection.pipeline(), connection.transaction():
        connection.execute(_SESSION, [named["tenant"]])
        held = connection.execute(_HOLD, named)
    ((row_id,),) = held.fetchall()
    with connection.pipeline(), connection.transaction():
        connection.execute(_SESSION, [named["tenant"]])
        connection.execute(_BOOK, [named["tenant"], row_id])
