"""Nothing is lost: what a client writes comes back as it wrote it, whatever columns there are."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic import EXTENSION, Clinic, Resource, appointment, name, schedule, slot

V2 = "http://terminology.hl7.org/CodeSystem/v2-0276"
NINE = "2026-06-02T09:00:00Z"
PATIENT = {"actor": {"reference": "Patient/1"}, "status": "accepted"}


def _exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def _sent_and_read(clinic: Clinic, body: Resource) -> tuple[Resource, Resource]:
    """What was sent, and what a read of it answers without what only the server says."""
    text = json.dumps(body, default=_Raw.as_is)
    for raw in _Raw.made:
        text = text.replace(json.dumps(raw.mark), raw.text)
    answer = clinic.http.post(body["resourceType"], content=text)
    assert answer.status_code == 201, answer.text
    made = _exact(answer.text)
    read = _exact(clinic.http.get(name(made)).text)
    assert read == made
    return _exact(text), _plain(read, body)


class _Raw:
    """A JSON number with its digits."""

    made: list[_Raw] = []  # noqa: RUF012 - emptied by nobody, a test run is short

    def __init__(self, text: str) -> None:
        self.text, self.mark = text, f"raw {len(self.made)}"
        self.made.append(self)

    @staticmethod
    def as_is(value: Any) -> str:
        assert isinstance(value, _Raw)
        return value.mark


def _plain(read: Resource, sent: Resource) -> Resource:
    """The resource without id, version, time, our identifier and source, and without defaults that were not sent."""
    shown = {key: value for key, value in read.items() if key != "id"}
    shown["meta"] = {k: v for k, v in shown["meta"].items() if k not in ("versionId", "lastUpdated")}
    shown["identifier"] = [each for each in shown["identifier"] if each.get("system") != "urn:fhir-sched:id"]
    source = EXTENSION + "appointment-source"
    shown["extension"] = [each for each in shown.get("extension", []) if each["url"] != source]
    for defaulted in ("created", "active"):
        if defaulted not in sent:
            shown.pop(defaulted, None)
    return {key: value for key, value in shown.items() if value not in ([], {})}


def _ours(text: str, clinic: Clinic) -> Resource:
    return clinic.schedule(comment=text)


TIMES = [
    ("2026-06-02T09:00:00+02:00", "2026-06-02T09:15:00+02:00"),
    ("2026-06-02T09:00:00.000Z", "2026-06-02T09:15:00.100Z"),
    ("2026-06-02T09:00:00.123456789Z", "2026-06-02T09:15:00.999999999Z"),
    ("2026-06-02T09:00:00-00:00", "2026-06-02T09:15:00+00:00"),
    ("2026-06-02T09:00:00+05:45", "2026-06-02T09:15:00+05:45"),
    ("2026-06-02T09:00:00-11:00", "2026-06-02T09:15:00+14:00"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:15:00Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:15:00Z"),
    ("9999-12-31T23:00:00Z", "9999-12-31T23:59:59Z"),
    ("2026-06-02T09:00:00.0000001Z", "2026-06-02T09:15:00.5Z"),
    ("1582-10-10T00:00:00Z", "1582-10-10T01:00:00Z"),
    ("1900-02-28T23:59:59.9999999Z", "1900-03-01T00:00:00Z"),
]


@pytest.mark.parametrize(("start", "end"), TIMES)
@pytest.mark.parametrize("kind", ["Slot", "exception", "Appointment", "waitlist"])
def test_times_keep_their_offset_and_precision(clinic: Clinic, kind: str, start: str, end: str) -> None:
    if (start > end or "-11:00" in start) and kind:
        end = "2026-06-02T23:15:00-11:00"
    of = clinic.schedule()
    closed = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "x"}]
    body = {
        "Slot": {**slot(of, NINE), "start": start, "end": end},
        "exception": {**slot(of, NINE, status="busy-unavailable", extension=closed), "start": start, "end": end},
        "Appointment": appointment(start=start, end=end),
        "waitlist": appointment(status="waitlist", start=start, end=end),
    }[kind]
    sent, read = _sent_and_read(clinic, body)
    assert read == sent


APPOINTMENTS: list[tuple[str, dict[str, Any]]] = [
    ("a decimal with its zeros", {"extension": [{"url": "http://x", "valueDecimal": _Raw("1.10")}]}),
    ("a decimal of 60 digits", {"extension": [{"url": "http://x", "valueDecimal": _Raw("0." + "1234567890" * 6)}]}),
    ("a small decimal", {"extension": [{"url": "http://x", "valueDecimal": _Raw("0.000000000000000000001")}]}),
    ("a decimal zero", {"extension": [{"url": "http://x", "valueDecimal": _Raw("0.00")}]}),
    ("a big decimal", {"extension": [{"url": "http://x", "valueDecimal": _Raw("12345678901234567890.5")}]}),
    ("extensions in their order", {"extension": [{"url": f"http://x/{n}", "valueInteger": n} for n in (3, 1, 2, 1)]}),
    (
        "our extension between others",
        {
            "extension": [
                {"url": "http://x/a", "valueString": "a"},
                {"url": EXTENSION + "allow-double-booking", "valueBoolean": True},
                {"url": "http://x/b", "valueString": "b"},
            ]
        },
    ),
    ("our extension as false", {"extension": [{"url": EXTENSION + "allow-double-booking", "valueBoolean": False}]}),
    (
        "our extension with an id",
        {"extension": [{"id": "e1", "url": EXTENSION + "allow-double-booking", "valueBoolean": True}]},
    ),
    ("an unknown extension below our base", {"extension": [{"url": EXTENSION + "nonsense", "valueString": "x"}]}),
    ("a modifier extension", {"modifierExtension": [{"url": "http://m", "valueBoolean": True}]}),
    (
        "contained resources",
        {
            "contained": [
                {"resourceType": "Patient", "id": "p", "name": [{"family": "Chalmers"}]},
                {"resourceType": "Location", "id": "l", "mode": "instance"},
            ],
            "participant": [
                PATIENT,
                {"actor": {"reference": "#p"}, "status": "accepted"},
                {"actor": {"reference": "#l"}, "status": "tentative"},
            ],
        },
    ),
    (
        "primitive extensions",
        {
            "description": "x",
            "_description": {"id": "d", "extension": [{"url": "http://x", "valueCode": "y"}]},
            "_status": {"extension": [{"url": "http://x", "valueCode": "y"}]},
            "_start": {"extension": [{"url": "http://x", "valueCode": "y"}]},
            "_created": {"extension": [{"url": "http://x", "valueCode": "y"}]},
            "_comment": {"extension": [{"url": "http://x", "valueCode": "no value at all"}]},
        },
    ),
    (
        "narrative",
        {"text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><b>ä &amp; 😀</b></div>'}},
    ),
    ("language and rules", {"language": "de-CH", "implicitRules": "http://rules"}),
    (
        "meta",
        {
            "meta": {
                "profile": ["http://p"],
                "tag": [{"system": "http://t", "code": "c"}],
                "security": [{"code": "R"}],
                "source": "http://s#1",
            }
        },
    ),
    (
        "identifiers",
        {"identifier": [{"use": "usual", "system": "http://i", "value": "7", "period": {"start": "2026"}}]},
    ),
    ("a created day", {"created": "2013-10-10"}),
    ("a created year", {"created": "2013"}),
    ("a created month", {"created": "2013-10"}),
    ("a created time with offset", {"created": "2013-10-10T10:00:00.500+02:00"}),
    ("words as type", {"appointmentType": {"text": "A talk"}}),
    ("a known type", {"appointmentType": {"coding": [{"system": V2, "code": "WALKIN"}]}}),
    ("a known type without system", {"appointmentType": {"coding": [{"code": "WALKIN"}]}}),
    (
        "a type with display",
        {
            "appointmentType": {
                "coding": [{"system": V2, "code": "WALKIN", "display": "x", "userSelected": False}],
                "text": "y",
            }
        },
    ),
    ("a type without a code", {"appointmentType": {"coding": [{"system": V2}]}}),
    (
        "two types of one concept",
        {"appointmentType": {"coding": [{"system": "http://a", "code": "b c"}, {"code": "d"}]}},
    ),
    (
        "reasons",
        {"reasonCode": [{"coding": [{"system": "http://s", "code": "1", "display": "d"}], "text": "t"}, {"text": "u"}]},
    ),
    ("one reason in words", {"reasonCode": [{"text": "u"}]}),
    ("a reason with spaces around", {"reasonCode": [{"text": " u "}]}),
    ("priority 0", {"priority": 0}),
    ("white space", {"comment": "  a\r\n\tb  ", "description": "\u00a0x\u200b", "patientInstruction": "# *x*\n\n- y"}),
    ("every script", {"comment": "Zoë 北京 😀 \u202eabc \u0300 \U0010fffd"}),
    (
        "an identifier-only patient",
        {
            "participant": [
                {
                    "actor": {"type": "Patient", "identifier": {"system": "urn:ahv", "value": "756"}},
                    "status": "accepted",
                }
            ]
        },
    ),
    (
        "an absolute patient",
        {"participant": [{"actor": {"reference": "https://elsewhere.example/fhir/Patient/1"}, "status": "accepted"}]},
    ),
    ("a versioned patient", {"participant": [{"actor": {"reference": "Patient/1/_history/2"}, "status": "accepted"}]}),
    (
        "an upper case patient",
        {
            "participant": [
                {"actor": {"reference": "Patient/AAAAAAAA-0000-4000-8000-000000000000"}, "status": "accepted"}
            ]
        },
    ),
    (
        "participants of every kind in any order",
        {
            "participant": [
                {"type": [{"text": "t"}], "status": "needs-action"},
                {"actor": {"reference": "Location/2"}, "required": "optional", "status": "declined"},
                {
                    "actor": {"reference": "Practitioner/2", "display": "Dr"},
                    "status": "accepted",
                    "period": {"start": "2026"},
                },
                {"actor": {"reference": "RelatedPerson/2"}, "status": "accepted"},
                {"actor": {"reference": "Patient/2"}, "status": "tentative"},
                {"actor": {"reference": "Practitioner/1"}, "status": "accepted"},
                {"actor": {"display": "Phone"}, "status": "accepted"},
                {"actor": {"reference": "Patient/1"}, "status": "accepted"},
            ]
        },
    ),
    (
        "periods, references and the rest",
        {
            "serviceCategory": [{"text": "a"}],
            "serviceType": [{"text": "b"}],
            "specialty": [{"text": "c"}],
            "reasonReference": [{"reference": "Condition/1", "display": "x"}],
            "supportingInformation": [{"reference": "Basic/1"}, {"display": "y"}],
            "minutesDuration": 20,
            "basedOn": [{"reference": "ServiceRequest/1"}],
            "requestedPeriod": [{"start": "2026-06", "end": "2026-07-01T10:00:00+02:00"}, {"end": "2027"}],
        },
    ),
    (
        "a reason for a cancellation",
        {"status": "cancelled", "cancelationReason": {"coding": [{"code": "pat"}], "text": "x"}},
    ),
    ("a reason for a no-show", {"status": "noshow", "cancelationReason": {"text": "x"}}),
    ("a proposal without times", {"status": "proposed", "start": None, "end": None}),
    ("an id on an element", {"participant": [{"id": "p1", **PATIENT}], "appointmentType": {"id": "t", "text": "x"}}),
    ("text that looks like our token", {"comment": "raw -1"}),
]


@pytest.mark.parametrize(("what", "elements"), APPOINTMENTS, ids=[what for what, _ in APPOINTMENTS])
def test_an_appointment_comes_back(clinic: Clinic, what: str, elements: dict[str, Any]) -> None:
    sent, read = _sent_and_read(clinic, appointment(patient="Patient/1", **elements))
    assert read == sent, what


WAITLIST: list[tuple[str, dict[str, Any]]] = [
    ("bare", {}),
    ("a type", {"appointmentType": {"coding": [{"system": V2, "code": "ROUTINE"}]}}),
    ("a type in words", {"appointmentType": {"text": "A talk"}}),
    ("priority 0", {"priority": 0}),
    ("priority", {"priority": 9}),
    ("a comment", {"comment": "x"}),
    ("criteria", {"extension": [{"url": EXTENSION + "waitlist-criteria", "valueString": '{ "b":1.10,"a" : [2]}'}]}),
    (
        "practitioner and location",
        {"participant": [PATIENT, {"actor": {"reference": "Practitioner/1"}, "status": "accepted"}]},
    ),
    ("a wish for a time", {"requestedPeriod": [{"start": "2026-06-02", "end": "2026-06-09"}]}),
    ("a named slot that is elsewhere", {"slot": [{"reference": "Slot/elsewhere"}]}),
    ("created", {"created": "2026"}),
]


@pytest.mark.parametrize(("what", "elements"), WAITLIST, ids=[what for what, _ in WAITLIST])
def test_a_waitlist_entry_comes_back(clinic: Clinic, what: str, elements: dict[str, Any]) -> None:
    sent, read = _sent_and_read(clinic, appointment(patient="Patient/1", status="waitlist", **elements))
    assert read == sent, what


def _availability(**parts: Any) -> dict[str, Any]:
    days = [{"url": "daysOfWeek", "valueCode": day} for day in parts.pop("days", ["mon"])]
    rest = [{"url": key, **value} for key, value in parts.items()]
    times = [{"url": "startTime", "valueTime": "09:00:00"}, {"url": "endTime", "valueTime": "17:00:00"}]
    minutes = [{"url": "slotMinutes", "valuePositiveInt": 20}]
    return {"url": EXTENSION + "schedule-availability", "extension": [*days, *times, *minutes, *rest]}


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("bare", {}),
    ("inactive", {"active": False}),
    ("a time zone", {"extension": [{"url": EXTENSION + "schedule-timezone", "valueCode": "Asia/Kathmandu"}]}),
    ("the zone UTC", {"extension": [{"url": EXTENSION + "schedule-timezone", "valueCode": "UTC"}]}),
    (
        "rules and a zone in any order",
        {
            "extension": [
                _availability(),
                {"url": "http://x", "valueString": "x"},
                {"url": EXTENSION + "schedule-timezone", "valueCode": "Europe/Berlin"},
                _availability(days=["tue", "wed"]),
            ]
        },
    ),
    (
        "a rule with all its parts",
        {
            "extension": [
                _availability(
                    appointmentType={"valueCode": "ROUTINE"},
                    validFrom={"valueDate": "2026-01-01"},
                    validTo={"valueDate": "2026-12-31"},
                )
            ]
        },
    ),
    (
        "service types",
        {
            "serviceType": [
                {"coding": [{"system": "http://a", "code": "1"}, {"code": "2", "display": "x"}]},
                {"text": "y"},
            ]
        },
    ),
    ("a service type with a bar", {"serviceType": [{"coding": [{"code": "a|b"}]}]}),
    ("a plain service type", {"serviceType": [{"coding": [{"code": "57"}]}]}),
    (
        "actors",
        {
            "actor": [
                {"reference": "RelatedPerson/1"},
                {"reference": "Location/2", "display": "x"},
                {"reference": "Practitioner/1"},
            ]
        },
    ),
    ("an identifier-only actor", {"actor": [{"type": "Device", "identifier": {"value": "7"}}]}),
    ("an open horizon", {"planningHorizon": {"start": "2026"}}),
    ("a horizon to the day", {"planningHorizon": {"start": "2026-01-01", "end": "2026-12-31"}}),
    ("a horizon with extension", {"planningHorizon": {"extension": [{"url": "http://x", "valueCode": "y"}]}}),
    (
        "identifiers and words",
        {
            "identifier": [{"value": "1"}, {"system": "http://x", "value": "2"}],
            "comment": "ä",
            "specialty": [{"text": "z"}],
        },
    ),
]


@pytest.mark.parametrize(("what", "elements"), SCHEDULES, ids=[what for what, _ in SCHEDULES])
def test_a_schedule_comes_back(clinic: Clinic, what: str, elements: dict[str, Any]) -> None:
    sent, read = _sent_and_read(clinic, schedule(**elements))
    assert read == sent, what


SLOTS: list[tuple[str, dict[str, Any]]] = [
    ("busy-tentative", {"status": "busy-tentative"}),
    ("entered in error", {"status": "entered-in-error"}),
    (
        "overbooked",
        {"overbooked": False, "comment": "x", "serviceCategory": [{"coding": [{"code": "17", "display": "GP"}]}]},
    ),
    ("a schedule with display", {"schedule": {"display": "Dr. Careful"}}),
    ("a type", {"appointmentType": {"coding": [{"code": "X", "version": "1"}]}}),
    (
        "an exception",
        {
            "status": "busy-unavailable",
            "comment": "ä",
            "extension": [
                {"url": "http://a", "valueString": "x"},
                {"url": EXTENSION + "schedule-exception-type", "valueCode": "training"},
            ],
            "specialty": [{"text": "x"}],
        },
    ),
]


@pytest.mark.parametrize(("what", "elements"), SLOTS, ids=[what for what, _ in SLOTS])
def test_a_slot_comes_back(clinic: Clinic, what: str, elements: dict[str, Any]) -> None:
    body = slot(clinic.schedule(), NINE)
    body |= {**elements, "schedule": {**body["schedule"], **elements.get("schedule", {})}}
    sent, read = _sent_and_read(clinic, body)
    assert read == sent, what


# generated resources

_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda t: bool(t.strip())
)
_codes = st.from_regex(r"[A-Za-z0-9:|\\,$-]{1,12}", fullmatch=True)
_uris = st.sampled_from(["http://a", "urn:oid:1.2.3", "http://example.org/x|1.0", "mailto:a@b"])
_codings = st.fixed_dictionaries({"code": _codes}, optional={"system": _uris, "display": _texts, "version": _texts})
_concepts = st.one_of(
    st.fixed_dictionaries({"text": _texts}, optional={"coding": st.lists(_codings, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"coding": st.lists(_codings, min_size=1, max_size=3)}),
)
_extensions = st.one_of(
    st.fixed_dictionaries({"url": _uris, "valueString": _texts}),
    st.fixed_dictionaries({"url": _uris, "valueInteger": st.integers(-(2**31), 2**31 - 1)}),
    st.fixed_dictionaries({"url": _uris, "valueBoolean": st.booleans()}),
    st.fixed_dictionaries({"url": _uris, "valueCoding": _codings}),
)
_references = st.builds(
    lambda base, kind, fhir_id: {"reference": f"{base}{kind}/{fhir_id}"},
    st.sampled_from(["", "https://elsewhere.example/fhir/"]),
    st.sampled_from(
        ["Patient", "Practitioner", "PractitionerRole", "Location", "Device", "RelatedPerson", "HealthcareService"]
    ),
    st.from_regex(r"[A-Za-z0-9.-]{1,20}", fullmatch=True).filter(lambda text: text.strip(".") != ""),
)
_parts = st.fixed_dictionaries(
    {"actor": _references, "status": st.sampled_from(["accepted", "declined", "tentative", "needs-action"])},
    optional={
        "type": st.lists(_concepts, min_size=1, max_size=2),
        "required": st.sampled_from(["required", "optional"]),
    },
)
_lists = st.lists(_concepts, min_size=1, max_size=3)
_generated = st.fixed_dictionaries(
    {"participant": st.lists(_parts, max_size=4)},
    optional={
        "extension": st.lists(_extensions, min_size=1, max_size=3),
        "modifierExtension": st.lists(_extensions, min_size=1, max_size=1),
        "appointmentType": _concepts,
        "reasonCode": _lists,
        "serviceType": _lists,
        "specialty": _lists,
        "description": _texts,
        "comment": _texts,
        "priority": st.integers(0, 2**31 - 1),
        "identifier": st.lists(
            st.fixed_dictionaries({"value": _texts}, optional={"system": _uris}), min_size=1, max_size=2
        ),
    },
)


@given(elements=_generated, status=st.sampled_from(["proposed", "cancelled", "waitlist"]))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_appointment_comes_back_and_is_found_by_what_it_says(
    shared: Clinic, elements: dict[str, Any], status: str
) -> None:
    body = appointment(status=status, **{**elements, "participant": [PATIENT, *elements["participant"]]})
    sent, read = _sent_and_read(shared, body)
    assert read == sent
    made = shared.create(body)
    again = shared.put(made)
    assert again.status_code == 200, again.text
    assert {**again.json(), "meta": 0} == {**made, "meta": 0}
    for code, concepts in (("service-type", "serviceType"), ("specialty", "specialty"), ("reason-code", "reasonCode")):
        for coding in (c for each in body.get(concepts, []) for c in each.get("coding", [])):
            value = "".join(f"\\{letter}" if letter in "\\,$|" else letter for letter in coding["code"])
            answer = shared.http.get("Appointment", params={code: value, "_id": made["id"]})
            assert answer.json()["total"] == 1, answer.text
    for part in body["participant"]:
        answer = shared.http.get("Appointment", params={"actor": part["actor"]["reference"], "_id": made["id"]})
        assert answer.json()["total"] == 1, part
