"""Tokens and URIs in searches (R4 3.1.1.4.10, 3.1.1.4.13): every form, modifier and escape, beside what it finds."""

from __future__ import annotations

from typing import Any

import pytest

from clinic import EXTENSION, PATIENT, Clinic, appointment, name, refusal, row_id

V2 = "http://terminology.hl7.org/CodeSystem/v2-0276"


Elements = dict[str, Any]


def _concept(*codings: str) -> dict[str, Any]:
    """A CodeableConcept: each coding is `system|code` or a code alone."""
    pairs = (coding.rpartition("|") for coding in codings)
    return {"coding": [{"system": system, "code": code} if system else {"code": code} for system, _, code in pairs]}


@pytest.fixture(scope="module")
def slots(shared: Clinic) -> dict[str, str]:
    """Slots by name: what each says stands beside it."""
    of = shared.schedule()

    def made(hour: int, **elements: Any) -> str:
        return name(shared.slot(of, f"2026-06-02T{hour:02}:00:00Z", **elements))

    found = {
        "both": made(1, serviceType=[_concept("http://a|57", "http://b|58")]),
        "two": made(2, serviceType=[_concept("http://a|57"), _concept("http://a|58")], status="busy"),
        "bare": made(3, serviceType=[_concept("57")], status="busy-tentative"),
        "odd": made(
            4, serviceType=[_concept("x,y|z")], specialty=[{"coding": [{"system": "http://p", "code": "q|r$"}]}]
        ),
        "text": made(5, serviceType=[{"text": "57"}], status="busy-unavailable"),
        "walkin": made(6, appointmentType=_concept(f"{V2}|WALKIN")),
        "own": made(7, appointmentType=_concept("http://own|WALKIN")),
        "plain": made(8, appointmentType=_concept("WALKIN")),
        "several": made(9, appointmentType=_concept("http://own|X1", f"{V2}|CHECKUP")),
        "identified": made(10, identifier=[{"system": "http://i", "value": "7"}, {"value": "8"}]),
        "meta": made(
            11,
            meta={
                "tag": [{"system": "http://t", "code": "vip"}],
                "security": [{"system": "http://s", "code": "R"}],
                "profile": ["http://p/one", "http://p/two"],
                "source": "http://src#1",
            },
        ),
    }
    (row,) = shared.sql(
        """insert into slots (tenant_id, schedule_id, start_at, end_at, appointment_type, status)
           values (%s, %s, '2026-06-02T12:00Z', '2026-06-02T12:15Z', 'ROUTINE', 'blocked') returning id""",
        shared.tenant,
        row_id(of),
    )
    found["other program"] = f"Slot/slt-{row[0]}"
    (row,) = shared.sql(
        """insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at)
           values (%s, %s, '2026-06-02T13:00Z', '2026-06-02T14:00Z') returning id""",
        shared.tenant,
        row_id(of),
    )
    found["exception"] = f"Slot/exc-{row[0]}"
    return found


ALL = frozenset(
    [
        "both",
        "two",
        "bare",
        "odd",
        "text",
        "walkin",
        "own",
        "plain",
        "several",
        "identified",
        "meta",
        "other program",
        "exception",
    ]
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("service-type=57", {"both", "two", "bare"}),
        ("service-type=http://a|57", {"both", "two"}),
        ("service-type=http://b|58", {"both"}),
        ("service-type=http://b|57", set()),
        ("service-type=|57", {"bare"}),
        ("service-type=http://a|", {"both", "two"}),
        ("service-type=http://b|", {"both"}),
        ("service-type=58,57", {"both", "two", "bare"}),
        ("service-type=http://b|58,|57", {"both", "bare"}),
        ("service-type=57&service-type=58", {"both", "two"}),
        ("service-type=z", {"odd"}),
        ("service-type=x\\,y|z", {"odd"}),
        ("service-type=x%5C%2Cy%7Cz", {"odd"}),
        ("service-type=x,y|z", set()),
        ("specialty=http://p|q\\|r\\$", {"odd"}),
        ("specialty=http://p|", {"odd"}),
        ("service-type:not=57", ALL - {"both", "two", "bare"}),
        ("service-type:not=57,z", ALL - {"both", "two", "bare", "odd"}),
        ("service-type:not=http://b|58", ALL - {"both"}),
        ("service-type:missing=false", {"both", "two", "bare", "odd", "text"}),
        ("service-type:missing=true", ALL - {"both", "two", "bare", "odd", "text"}),
        ("specialty:missing=false", {"odd"}),
        ("status=free", {"both", "odd", "walkin", "own", "plain", "several", "identified", "meta"}),
        ("status=http://hl7.org/fhir/slotstatus|busy", {"two"}),
        ("status=http://hl7.org/fhir/slotstatus|", ALL),
        ("status=http://elsewhere|busy", set()),
        ("status=busy,busy-tentative", {"two", "bare"}),
        ("status=busy-tentative", {"bare"}),
        ("status=busy-unavailable", {"text", "other program", "exception"}),
        ("status=nonsense", set()),
        ("status=busy&status=free", set()),
        ("status:not=free", {"two", "bare", "text", "other program", "exception"}),
        ("status:not=free,busy", {"bare", "text", "other program", "exception"}),
        ("status:not=busy-unavailable", ALL - {"text", "other program", "exception"}),
        ("status:missing=true", set()),
        ("status:missing=false", ALL),
        ("appointment-type=WALKIN", {"walkin", "own", "plain"}),
        (f"appointment-type={V2}|WALKIN", {"walkin"}),
        ("appointment-type=http://own|WALKIN", {"own"}),
        ("appointment-type=|WALKIN", {"plain"}),
        (f"appointment-type={V2}|", {"walkin", "several", "other program"}),
        ("appointment-type=http://own|", {"own", "several"}),
        ("appointment-type=CHECKUP", {"several"}),
        ("appointment-type=X1", {"several"}),
        (f"appointment-type={V2}|ROUTINE", {"other program"}),
        ("appointment-type=ROUTINE", {"other program"}),
        ("appointment-type=ROUTINE,CHECKUP", {"several", "other program"}),
        ("appointment-type:not=WALKIN", ALL - {"walkin", "own", "plain"}),
        (f"appointment-type:not={V2}|WALKIN", ALL - {"walkin"}),
        ("appointment-type:missing=false", {"walkin", "own", "plain", "several", "other program"}),
        ("appointment-type:missing=true", ALL - {"walkin", "own", "plain", "several", "other program"}),
        ("identifier=http://i|7", {"identified"}),
        ("identifier=7", {"identified"}),
        ("identifier=|8", {"identified"}),
        ("identifier=|7", set()),
        ("identifier=http://i|8", set()),
        ("identifier=http://i|", {"identified"}),
        ("identifier=urn:fhir-sched:id|", ALL),
        ("identifier:missing=false", ALL),
        ("identifier:missing=true", set()),
        ("identifier:not=7", ALL - {"identified"}),
        ("_id:missing=false", ALL),
        ("_id:missing=true", set()),
        ("_tag=vip", {"meta"}),
        ("_tag=http://t|vip", {"meta"}),
        ("_tag=http://x|vip", set()),
        ("_tag:not=vip", ALL - {"meta"}),
        ("_tag:missing=true", ALL - {"meta"}),
        ("_security=http://s|R", {"meta"}),
        ("_profile=http://p/two", {"meta"}),
        ("_profile=http://p/", set()),
        ("_profile=http://p/one,http://x", {"meta"}),
        ("_profile=HTTP://p/one", set()),
        ("_source=http://src%231", {"meta"}),
        ("_source:missing=true", ALL - {"meta"}),
        ("service-type=57&status=free", {"both"}),
        ("service-type=57&appointment-type=WALKIN", set()),
        ("service-type:not=57&status:not=free", {"text", "other program", "exception"}),
        ("appointment-type=WALKIN&appointment-type:not=http://own|WALKIN", {"walkin", "plain"}),
        ("service-type=57&identifier=7", set()),
        ("service-type=%20", ALL),
    ],
)
@pytest.mark.parametrize("order", ["", "&_sort=-start"])
def test_a_token_finds(shared: Clinic, slots: dict[str, str], query: str, found: set[str], order: str) -> None:
    labels = {resource: label for label, resource in slots.items()}
    listed = [labels[resource] for resource in shared.found(f"Slot?{query}{order}")]
    in_order = [label for label in slots if label in found]
    assert listed == (in_order[::-1] if order else in_order)
    assert shared.bundle(f"Slot?{query}&_summary=count")["total"] == len(found)


@pytest.mark.parametrize(
    "query",
    [
        "service-type=a\\b",
        "service-type=a\\",
        "service-type=a|b|c",
        "service-type=|",
        "status:text=fr",
        "status:in=http://x",
        "status:exact=free",
        "status:not-in=http://x",
        "status:above=a",
        "status:below=a",
        "identifier:of-type=a|b|c",
        "status:missing=maybe",
        "status:missing=",
        "service-type:Patient=1",
        "_id=a|b",
        "status:not:missing=true",
        "_profile:above=http://p",
        "_profile:below=http://p",
        "service-type=a%00b",
        "identifier=%00",
    ],
)
@pytest.mark.parametrize("handling", ["strict", "lenient"])
def test_what_is_no_token_or_no_modifier_is_400(shared: Clinic, query: str, handling: str) -> None:
    answer = shared.http.get(f"Slot?{query}", headers={"Prefer": f"handling={handling}"})
    if query == "status:missing=" and handling == "lenient":
        assert answer.status_code == 200  # a parameter without a value is left out
    else:
        assert query.partition(":")[0].partition("=")[0] in refusal(answer, 400)[0]["diagnostics"]


@pytest.mark.parametrize("form", ["{id}", "|{id}", "{id},slt-00000000-0000-4000-8000-000000000000", "nonsense,{id}"])
def test_a_logical_id_is_found(shared: Clinic, slots: dict[str, str], form: str) -> None:
    for kind in ("both", "exception"):
        assert shared.found(f"Slot?_id={form.format(id=slots[kind].partition('/')[2])}") == [slots[kind]]


@pytest.mark.parametrize("form", ["slt_{}", "urn:fhir-sched:id|slt_{}"])
def test_the_business_identifier_is_found(shared: Clinic, slots: dict[str, str], form: str) -> None:
    text = slots["both"].partition("-")[2]
    assert shared.found(f"Slot?identifier={form.format(text)}") == [slots["both"]]
    assert shared.found(f"Slot?identifier=|slt_{text}") == []
    assert shared.found(f"Slot?identifier:not={form.format(text)}&service-type=57") == [slots["two"], slots["bare"]]


def test_ids_are_exact(shared: Clinic, slots: dict[str, str]) -> None:
    text = slots["both"].partition("/")[2]
    for wrong in (text.upper(), text.removeprefix("slt-"), text.replace("-", "_", 1), f"{text} "):
        assert shared.found(f"Slot?_id={wrong.strip()}") == ([slots["both"]] if wrong.strip() == text else [])
    assert slots["both"] not in shared.found(f"Slot?_id:not={text}")
    assert len(shared.found(f"Slot?_id:not={text}")) == len(ALL) - 1


def test_a_slot_that_was_written_again_is_found_by_what_it_says_now(clinic: Clinic) -> None:
    made = clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z", serviceType=[_concept("http://a|1")])
    clinic.put({**made, "serviceType": [_concept("http://a|2")]})
    assert clinic.found("Slot?service-type=1") == []
    assert clinic.found("Slot?service-type=2") == [name(made)]
    clinic.http.delete(name(made))
    assert clinic.found("Slot?service-type=2") == []


@pytest.mark.parametrize("type_", ["Schedule", "Slot", "Appointment"])
@pytest.mark.parametrize("code", ["service-category", "specialty", "service-type"])
def test_each_type_is_found_by_its_codes(clinic: Clinic, type_: str, code: str) -> None:
    element = {"service-category": "serviceCategory", "service-type": "serviceType"}.get(code, code)
    says: Elements = {element: [_concept("http://a|57"), {"text": "words"}]}
    of = clinic.schedule(**(says if type_ == "Schedule" else {}))
    made = {
        "Schedule": lambda: of,
        "Slot": lambda: clinic.slot(of, "2026-06-02T09:00:00Z", **says),
        "Appointment": lambda: clinic.create(appointment(**says)),
    }[type_]()
    assert clinic.found(f"{type_}?{code}=57") == [name(made)]
    assert clinic.found(f"{type_}?{code}=http://a|57") == [name(made)]
    assert clinic.found(f"{type_}?{code}=|57") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("service-type=57", ["a", "b"]),
        ("service-type=http://x|57", ["b"]),
        ("service-type=|57", ["a"]),
        ("service-type=http://x|", ["b"]),
        ("service-type:not=57", ["c"]),
        ("service-type:missing=true", ["c"]),
        ("active=true", ["a", "c"]),
        ("active=false", ["b"]),
        ("active:not=true", ["b"]),
        ("active:missing=true", []),
    ],
)
def test_schedules_of_other_programs_are_found(clinic: Clinic, query: str, found: list[str]) -> None:
    rows = {"a": (["57", "58"], True), "b": (["http://x|57"], False), "c": (None, True)}
    labels = {}
    for label, (types, active) in rows.items():
        (row,) = clinic.sql(
            """insert into schedules (tenant_id, actor_id, actor_type, service_types, is_active)
               values (%s, gen_random_uuid(), 'provider', %s, %s) returning id""",
            clinic.tenant,
            types,
            active,
        )
        labels[f"Schedule/sch-{row[0]}"] = label
    assert sorted(labels[each] for each in clinic.found(f"Schedule?{query}")) == found


@pytest.mark.parametrize("text", ["1", "yes", "TRUE", "true|", "http://x|true", "null"])
def test_what_is_no_boolean_is_400(clinic: Clinic, text: str) -> None:
    refusal(clinic.http.get(f"Schedule?active={text}"), 400)


@pytest.fixture(scope="module")
def appointments(shared: Clinic) -> dict[str, str]:
    """Appointments by name."""

    def made(status: str = "booked", **elements: Any) -> str:
        return name(shared.create(appointment(status=status, **elements)))

    def part(*statuses: str) -> list[dict[str, Any]]:
        return [{"actor": {"reference": PATIENT}, "status": status} for status in statuses]

    found = {status: made(status) for status in STATUSES}
    found["declined"] = made(participant=part("declined"))
    found["mixed"] = made(participant=part("accepted", "tentative"))
    found["reasons"] = made(reasonCode=[_concept("http://r|flu"), {"text": "cough"}])
    found["types"] = made(appointmentType=_concept(f"{V2}|FOLLOWUP"))
    (row,) = shared.sql(
        """insert into appointments (tenant_id, patient_id, created_by, reason, status, appointment_type)
           values (%s, gen_random_uuid(), gen_random_uuid(), 'flu', 'who knows', 'FOLLOWUP') returning id""",
        shared.tenant,
    )
    found["other program"] = f"Appointment/apt-{row[0]}"
    return found


STATUSES = [
    "proposed",
    "pending",
    "booked",
    "arrived",
    "fulfilled",
    "cancelled",
    "noshow",
    "entered-in-error",
    "checked-in",
    "waitlist",
]
EVERY = frozenset([*STATUSES, "declined", "mixed", "reasons", "types", "other program"])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        *((f"status={status}", {status}) for status in STATUSES if status not in ("booked", "entered-in-error")),
        ("status=booked", {"booked", "declined", "mixed", "reasons", "types"}),
        ("status=entered-in-error", {"entered-in-error", "other program"}),
        ("status=arrived,checked-in", {"arrived", "checked-in"}),
        ("status:not=booked", EVERY - {"booked", "declined", "mixed", "reasons", "types"}),
        ("status:not=waitlist,checked-in", EVERY - {"waitlist", "checked-in"}),
        ("part-status=accepted", EVERY - {"declined"}),
        ("part-status=declined", {"declined"}),
        ("part-status=tentative,declined", {"declined", "mixed"}),
        ("part-status=http://hl7.org/fhir/participationstatus|tentative", {"mixed"}),
        ("part-status=http://elsewhere|tentative", set()),
        ("part-status:not=accepted", {"declined"}),
        ("part-status:not=tentative", EVERY - {"mixed"}),
        ("part-status=accepted&part-status=tentative", {"mixed"}),
        ("part-status:missing=true", set()),
        ("reason-code=flu", {"reasons"}),
        ("reason-code=http://r|flu", {"reasons"}),
        ("reason-code:missing=false", {"reasons", "other program"}),
        ("appointment-type=FOLLOWUP", {"types", "other program"}),
        (f"appointment-type={V2}|FOLLOWUP", {"types", "other program"}),
        ("appointment-type:missing=true", EVERY - {"types", "other program"}),
    ],
)
def test_a_token_finds_appointments(shared: Clinic, appointments: dict[str, str], query: str, found: set[str]) -> None:
    labels = {resource: label for label, resource in appointments.items()}
    assert {labels[resource] for resource in shared.found(f"Appointment?{query}")} == found


def test_the_zone_and_other_extensions_do_not_disturb_a_search(clinic: Clinic) -> None:
    made = clinic.schedule(zone="Europe/Berlin", extension=[{"url": EXTENSION + "unknown", "valueString": "x"}])
    assert clinic.found("Schedule?active=true") == [name(made)]
