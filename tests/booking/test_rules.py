"""The clinic's rules of booking: for whom they hold, what breaks them, who sets them aside, the command for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner

from authority import Authority
from clinic import EXTENSION, Resource, appointment, as_resource, later, name, refusal, row_id
from db import Database
from fhir_sched.cli import main
from fhir_sched.scheduling.booking_rules import ANYONE, CALLERS, RULES
from practice import ANN, Practice
from proposals import only, proposal, reference
from server import Server

PATCH = {"Content-Type": "application/json-patch+json"}


class Rulebook(Practice):
    """Also with `system`, another program with a token."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        super().__init__(server, database, authority)
        self.system = self.client(authority, "system/*.cruds")

    def close(self) -> None:
        super().close()
        self.system.close()

    def anns(self, *slots: Resource, **elements: Any) -> httpx.Response:
        """The answer to Ann who books."""
        return self.ann.post("Appointment", json=appointment(*slots, patient=ANN, **elements))


@pytest.fixture
def practice(guarded: Server, database: Database, authority: Authority) -> Iterator[Rulebook]:
    """A tenant without any row."""
    made = Rulebook(guarded, database, authority)
    yield made
    made.close()


def _in(minutes: float) -> str:
    """So many minutes from now, in whole seconds."""
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _broken(answer: httpx.Response) -> list[str]:
    """The rules that a refusal names."""
    return [issue["diagnostics"].partition(":")[0] for issue in refusal(answer, 422)]


def _reason(text: Any) -> list[Resource]:
    return [{"url": EXTENSION + "override-reason", "valueString": text}]


# what holds where nobody said anything


def test_a_patient_books_what_lies_ahead_and_staff_whatever_was(practice: Rulebook) -> None:
    of = practice.schedule()
    past, ahead = practice.slot(of, _in(-60)), practice.slot(of, _in(60))
    assert _broken(practice.anns(past)) == ["future-only"]
    assert practice.read(past)["status"] == "free"
    practice.booked(past)
    assert practice.anns(ahead).status_code == 201
    old = appointment(start="2013-12-10T09:00:00Z", end="2013-12-10T11:00:00Z")
    assert practice.system.post("Appointment", json=old).status_code == 201


def test_a_patient_takes_slots_that_follow_each_other(practice: Rulebook) -> None:
    of, other = practice.schedule(), practice.schedule()
    nine, next_one, later_one = (practice.slot(of, f"2036-06-02T09:{minute}:00Z") for minute in ("00", "15", "45"))
    elsewhere = practice.slot(other, "2036-06-02T09:30:00Z")
    assert _broken(practice.anns(nine, later_one)) == ["adjacent-slots"]
    assert _broken(practice.anns(nine, next_one, elsewhere)) == ["adjacent-slots"]
    assert practice.anns(next_one, nine, start=nine["start"], end=next_one["end"]).status_code == 201
    practice.booked(elsewhere, later_one)


def test_the_defaults_of_the_database_are_those_of_the_table(database: Database) -> None:
    with database.connect_app() as connection:
        for caller in (*CALLERS, ANYONE):
            row = connection.execute("select fhir_sched_default_rules(%s)", [caller]).fetchone()
            assert row is not None
            for rule in RULES.values():
                if caller in rule.callers:
                    assert (row[0].get(rule.name) or None) == (rule.default(caller) or None), (caller, rule.name)


# what a clinic sets


def test_notice_and_horizon_of_a_booking(practice: Rulebook) -> None:
    practice.rule("book-notice", 120)
    practice.rule("book-horizon", 30)
    of = practice.schedule()
    soon, far, right = (practice.slot(of, _in(minutes)) for minutes in (60, 60 * 24 * 40, 60 * 24))
    answer = practice.anns(soon)
    assert _broken(answer) == ["book-notice"]
    assert "2 hours before its start" in answer.json()["issue"][0]["diagnostics"]
    assert _broken(practice.anns(far)) == ["book-horizon"]
    assert practice.anns(right).status_code == 201
    practice.booked(soon)
    practice.booked(far)


def test_all_broken_rules_are_told_at_once(practice: Rulebook) -> None:
    practice.rule("book-notice", 60)
    practice.rule("times-of-slots", 1)
    past = practice.slot(practice.schedule(), _in(-60))
    assert _broken(practice.anns(past, end=later(past["end"], 5))) == ["future-only", "book-notice", "times-of-slots"]


def test_notice_of_a_cancellation_and_of_a_move(practice: Rulebook) -> None:
    practice.rule("cancel-notice", 1440)
    practice.rule("move-notice", 120)
    of = practice.schedule()
    soon, other = practice.slot(of, _in(60)), practice.slot(of, _in(60 * 24 * 3))
    made = as_resource(practice.anns(soon))
    cancel = {**made, "status": "cancelled"}
    move = {**made, "slot": [{"reference": name(other)}], "start": other["start"], "end": other["end"]}
    assert _broken(practice.ann.put(name(made), json=cancel)) == ["cancel-notice"]
    assert _broken(practice.ann.delete(name(made))) == ["cancel-notice"]
    assert _broken(practice.ann.put(name(made), json=move)) == ["move-notice"]
    assert practice.ann.put(name(made), json={**made, "comment": "by bus"}).status_code == 200
    assert practice.put(move).status_code == 200
    patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
    assert practice.ann.patch(name(made), json=patch, headers=PATCH).status_code == 200


def test_what_is_only_pending_is_given_up_at_any_time(practice: Rulebook) -> None:
    practice.rule("cancel-notice", 1440)
    made = as_resource(practice.anns(practice.slot(practice.schedule(), _in(60)), status="pending"))
    assert practice.ann.put(name(made), json={**made, "status": "cancelled"}).status_code == 200


def test_a_rule_holds_for_its_caller_and_its_tenant_alone(practice: Rulebook, clinic_of_others: Practice) -> None:
    practice.rule("future-only", 1, "staff")
    practice.rule("future-only", 0)
    of = practice.schedule()
    past = practice.slot(of, _in(-60))
    assert _broken(practice.book(past)) == ["future-only"]
    assert practice.anns(past).status_code == 201
    assert practice.system.post("Appointment", json=appointment(practice.slot(of, _in(-90)))).status_code == 201
    clinic_of_others.booked(clinic_of_others.slot(clinic_of_others.schedule(), _in(-60)))


@pytest.fixture
def clinic_of_others(guarded: Server, database: Database, authority: Authority) -> Iterator[Practice]:
    """Another tenant."""
    made = Practice(guarded, database, authority)
    yield made
    made.close()


def test_the_rule_of_a_schedule_goes_before_that_of_its_tenant(practice: Rulebook) -> None:
    strict, free, own = (practice.schedule() for _ in range(3))
    practice.rule("book-notice", 600)
    practice.rule("book-notice", None, of=free)
    practice.rule("book-notice", 30, of=own)
    assert _broken(practice.anns(practice.slot(strict, _in(60)))) == ["book-notice"]
    assert practice.anns(practice.slot(free, _in(60))).status_code == 201
    assert practice.anns(practice.slot(own, _in(70))).status_code == 201
    assert _broken(practice.anns(practice.slot(own, _in(20)))) == ["book-notice"]


def test_a_schedule_takes_its_rules_with_it(practice: Rulebook) -> None:
    of = practice.schedule()
    practice.rule("book-notice", 600, of=of)
    assert practice.http.delete(name(of)).status_code == 204
    assert practice.sql("select 1 from booking_rules where tenant_id = %s", practice.tenant) == []


def test_a_transaction_is_held_to_the_rules_as_a_whole(practice: Rulebook) -> None:
    of = practice.schedule()
    ahead, past = practice.slot(of, _in(60)), practice.slot(of, _in(-60))
    entries = [
        {"request": {"method": "POST", "url": "Appointment"}, "resource": appointment(each, patient=ANN)}
        for each in (ahead, past)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    refusal(practice.ann.post("", json=bundle), 422)
    assert practice.read(ahead)["status"] == "free"


def test_holds_and_series_are_held_to_them_too(practice: Rulebook) -> None:
    practice.rule("book-notice", 120)
    practice.rule("cancel-notice", 1440)
    of = practice.schedule()
    soon, later_one = practice.slot(of, _in(60)), practice.slot(of, _in(300))
    refused = practice.ann.post("Appointment/$hold", json=reference(proposal(soon, ANN)))
    assert "book-notice" in refusal(refused, 422)[0]["diagnostics"]
    held = only(practice.ann.post("Appointment/$hold", json=reference(proposal(later_one, ANN))))
    assert practice.ann.put(name(held), json={**held, "status": "cancelled"}).status_code == 200
    first = {"name": "appointment", "resource": appointment(soon, patient=ANN)}
    series = {"resourceType": "Parameters", "parameter": [first, {"name": "count", "valuePositiveInt": 2}]}
    issues = practice.ann.post("Appointment/$book-series", json=series).json()["issue"]
    assert "book-notice" in issues[0]["diagnostics"]


def test_other_programs_are_not_asked(practice: Rulebook) -> None:
    practice.rule("future-only", 1, "staff")
    practice.sql(
        "insert into appointments (tenant_id, patient_id, start_at, end_at, created_by) values (%s, %s, now() - "
        "interval '1 hour', now(), %s)",
        practice.tenant, uuid4(), uuid4(),
    )  # fmt: skip
    assert len(practice.found("Appointment?status=booked")) == 1


# overriding


def test_staff_sets_a_rule_aside_with_a_reason_that_is_kept(practice: Rulebook) -> None:
    practice.rule("future-only", 1, "staff")
    past = practice.slot(practice.schedule(), _in(-60))
    made = practice.booked(past, extension=_reason("the patient stood in front of us"))
    assert made["extension"] == [*_reason("the patient stood in front of us"), *made["extension"][1:]]
    changed = as_resource(practice.put({**made, "comment": "late"}))
    history = practice.bundle(f"{name(made)}/_history")["entry"]
    assert [entry["resource"]["extension"][0] for entry in history] == _reason("the patient stood in front of us") * 2
    payload = practice.sql(
        "select payload -> 'row' -> 'fhir' -> 'extension' from outbox where aggregate_id = %s and event_type = %s",
        row_id(made), "appointment.created",
    )  # fmt: skip
    assert payload == [(_reason("the patient stood in front of us"),)]
    assert changed["meta"]["versionId"] == "2"
    audited = practice.sql(
        "select subject, entity_version from audit_events where entity = %s and action = 'C'", name(made)
    )
    assert audited == [("somebody", 1)]


def test_a_reason_is_good_for_the_change_that_brings_it(practice: Rulebook) -> None:
    practice.rule("cancel-notice", 1440, "staff")
    practice.rule("future-only", 1, "staff")
    made = practice.booked(practice.slot(practice.schedule(), _in(-60)), extension=_reason("walked in"))
    assert _broken(practice.put({**made, "status": "cancelled"})) == ["cancel-notice"]
    assert practice.put({**made, "status": "cancelled", "extension": _reason("ill")}).status_code == 200


def test_a_patient_overrides_nothing(practice: Rulebook) -> None:
    past, ahead = (practice.slot(practice.schedule(), _in(minutes)) for minutes in (-60, 60))
    for slot in (past, ahead):
        (issue,) = refusal(practice.anns(slot, extension=_reason("please")), 403)
        assert issue["expression"] == ["Appointment.extension"]
    made = practice.booked(ahead, patient=ANN, extension=_reason("by phone"))
    kept = as_resource(practice.ann.put(name(made), json={**made, "comment": "thanks"}))
    assert kept["extension"][0] == _reason("by phone")[0]


def test_a_clinic_may_do_without_overrides(practice: Rulebook) -> None:
    practice.rule("override", 0, "staff")
    practice.rule("future-only", 1, "staff")
    refusal(practice.book(practice.slot(practice.schedule(), _in(-60)), extension=_reason("why not")), 403)


@pytest.mark.parametrize(
    "extension", [_reason(" \t")[0] | {"valueString": "x", "valueBoolean": True}, {"valueCode": "x"}]
)
def test_a_reason_says_something(practice: Rulebook, extension: Resource) -> None:
    given = {"url": EXTENSION + "override-reason", **extension}
    assert practice.book(extension=[given]).status_code in (400, 422)


# the command


def _run(database: Database, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["rules", *arguments, "--database-url", database.app_url])
    return done.exit_code, done.output


def test_the_command_shows_and_sets(practice: Rulebook, database: Database) -> None:
    of = practice.schedule()
    tenant = ("--tenant", str(practice.tenant))
    assert _run(database, "set", "book-notice", "60", "--caller", "portal", *tenant) == (0, "1 changed\n")
    assert _run(database, "set", "book-notice", "none", *tenant, "--schedule", of["id"]) == (0, "3 changed\n")
    assert _run(database, "set", "waitlist-offers", "off", *tenant)[0] == 0

    def shown(*more: str) -> dict[tuple[str, str], list[str]]:
        code, output = _run(database, "show", *tenant, *more)
        assert code == 0, output
        return {(line.split()[0], line.split()[1]): line.split()[2:] for line in output.splitlines()}

    assert shown()["book-notice", "portal"] == ["60", "minutes", "tenant"]
    assert shown("--schedule", of["id"])["book-notice", "portal"] == ["none", "minutes", "schedule"]
    assert shown()["book-notice", "staff"] == ["none", "minutes", "default"]
    assert shown()["waitlist-offers", ANYONE] == ["off", "switch", "tenant"]
    assert len(shown()) == sum(len(rule.callers) for rule in RULES.values())
    assert _broken(practice.anns(practice.slot(practice.schedule(), _in(30)))) == ["book-notice"]
    assert _run(database, "set", "book-notice", "default", *tenant) == (0, "1 changed\n")
    assert practice.anns(practice.slot(practice.schedule(), _in(45))).status_code == 201


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "nonsense", "1"), "there is no rule 'nonsense'"),
        (("set", "future-only", "maybe"), "on or off"),
        (("set", "book-notice", "1.5"), "whole number of minutes"),
        (("set", "override", "on", "--caller", "portal"), "a rule for staff, hl7, not for portal"),
        (("show", "--schedule", f"sch-{uuid4()}"), "there is no Schedule"),
        (("show", "--schedule", "x"), "sch-<uuid>"),
    ],
)
def test_the_command_says_what_would_be_right(database: Database, arguments: tuple[str, ...], said: str) -> None:
    code, output = _run(database, *arguments)
    assert (code, said in output) == (2, True), output


def test_the_rules_of_a_tenant_are_its_own(practice: Rulebook, database: Database) -> None:
    practice.rule("book-notice", 5)
    with database.connect_app(uuid4()) as connection:
        assert connection.execute("select 1 from booking_rules").fetchall() == []
    rows = practice.sql("select relrowsecurity, relforcerowsecurity from pg_class where relname = 'booking_rules'")
    assert rows == [(True, True)]
