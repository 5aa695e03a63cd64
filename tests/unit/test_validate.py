"""What is valid R4 and what is not, with the place and the kind of each complaint."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_sched import document
from fhir_sched.outcome import Kind
from fhir_sched.validate import resource_issues

SPEC = Path(__file__).parents[3] / "shared" / "spec"
needs_spec = pytest.mark.skipif(not SPEC.is_dir(), reason="the published examples are not beside this clone")

PERIOD = {"start": "2026-06-02T09:00:00Z", "end": "2026-06-02T09:15:00Z"}
APPOINTMENT: dict[str, Any] = {
    "resourceType": "Appointment",
    "status": "booked",
    **PERIOD,
    "slot": [{"reference": "Slot/slt-1"}],
    "participant": [
        {"actor": {"reference": "Patient/123"}, "status": "accepted"},
        {"actor": {"reference": "Practitioner/9"}, "status": "accepted", "required": "required"},
    ],
}
SLOT: dict[str, Any] = {
    "resourceType": "Slot",
    "schedule": {"reference": "Schedule/sch-1"},
    "status": "free",
    **PERIOD,
}
SCHEDULE: dict[str, Any] = {"resourceType": "Schedule", "actor": [{"reference": "Practitioner/9"}]}
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


def appointment(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**APPOINTMENT, **changes}.items() if value is not ...}


def slot(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**SLOT, **changes}.items() if value is not ...}


def schedule(**changes: Any) -> dict[str, Any]:
    return {**SCHEDULE, **changes}


def with_value(name: str, value: Any) -> dict[str, Any]:
    return schedule(extension=[{"url": "http://example.org/x", name: value}])


def narrative(div: str) -> dict[str, Any]:
    return schedule(text={"status": "generated", "div": div})


def patient_within(**changes: Any) -> dict[str, Any]:
    contained = {"resourceType": "Patient", "id": "p", **changes}
    return appointment(contained=[contained], participant=[{"actor": {"reference": "#p"}, "status": "accepted"}])


def complaints(resource: Any) -> list[tuple[Kind, str | None]]:
    expected = resource.get("resourceType", "Appointment")
    return [(issue.kind, issue.expression) for issue in resource_issues(resource, expected)]


ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}

SOUND = {
    "a booked appointment": appointment(),
    "a free slot": slot(),
    "a schedule": schedule(),
    "a leap day": slot(start="2024-02-29T09:00:00Z"),
    "a leap second": slot(start="2016-12-31T23:59:60Z"),
    "nine digits of a second": slot(start="2026-06-02T09:00:00.123456789+05:45"),
    "offset of 14 hours": slot(end="2026-06-02T09:00:00+14:00"),
    "a start after the end, which R4 does not forbid": appointment(start=PERIOD["end"], end=PERIOD["start"]),
    "a reason on noshow": appointment(status="noshow", cancelationReason={"text": "ill"}),
    "a waitlist entry without times": appointment(status="waitlist", start=..., end=...),
    "a period with one end": appointment(requestedPeriod=[{"start": "2026"}]),
    "a period of a month and a day in it": appointment(requestedPeriod=[{"start": "2026-06-30", "end": "2026-06"}]),
    "a period across zones": schedule(
        planningHorizon={"start": "2026-06-02T01:00:00+05:00", "end": "2026-06-01T21:00:00Z"}
    ),
    "a value that is absent for a reason": slot(status=..., _status=ABSENT),
    "an id on a primitive": slot(_status={"id": "s1"}),
    "names with holes": patient_within(name=[{"given": ["A", None], "_given": [None, ABSENT]}]),
    "a contained patient": patient_within(),
    "a contained resource that refers to its container": appointment(
        contained=[{"resourceType": "Basic", "id": "b", "code": {"text": "x"}, "subject": {"reference": "#"}}]
    ),
    "a versioned reference": slot(schedule={"reference": "Schedule/1/_history/2"}),
    "an absolute reference": slot(schedule={"reference": "https://example.org/fhir/Schedule/1"}),
    "a reference by urn": slot(schedule={"reference": "urn:uuid:123e4567-e89b-12d3-a456-426614174000"}),
    "a reference to another kind of server": slot(schedule={"reference": "https://example.org/calendar?id=1"}),
    "a reference by identifier": slot(schedule={"identifier": {"value": "1"}, "type": "Schedule"}),
    "any type where any is allowed": appointment(supportingInformation=[{"reference": "DocumentReference/1"}]),
    "a narrative": narrative(f'<div {XHTML}><p>a &lt; b &#8212; <a href="https://example.org/x">x</a></p></div>'),
    "a narrative of a picture": narrative(f'<div {XHTML}><img src="data:image/png;base64,QUJD"/></div>'),
    "a code of a value set that is only an example": slot(serviceType=[{"coding": [{"code": "anything"}]}]),
    "base64 in lines": with_value("valueBase64Binary", "QUJD\r\nQUI="),
    "a decimal": with_value("valueDecimal", Decimal("1.10")),
    "a whole decimal": with_value("valueDecimal", 3),
    "a quantity": with_value("valueQuantity", {"value": 1, "system": "http://unitsofmeasure.org", "code": "kg"}),
    "a canonical with an extension": schedule(meta={"profile": ["http://x"], "_profile": [ABSENT]}),
}

WRONG = {
    "unknown element": (appointment(colour="red"), [(Kind.STRUCTURE, "Appointment.colour")]),
    "element of R5": (
        appointment(status="cancelled", cancellationReason={"text": "x"}),
        [(Kind.STRUCTURE, "Appointment.cancellationReason")],
    ),
    "name that is no name": (appointment(**{"a b": 1}), [(Kind.STRUCTURE, "Appointment")]),
    "unknown element deep down": (
        slot(schedule={"reference": "Schedule/1", "ref": 1}),
        [(Kind.STRUCTURE, "Slot.schedule.ref")],
    ),
    "underscore of what has no extensions": (slot(id="1", _id={"id": "x"}), [(Kind.STRUCTURE, "Slot._id")]),
    "code of no value set": (appointment(status="no-show"), [(Kind.CODE_INVALID, "Appointment.status")]),
    "code in other letters": (slot(status="Free"), [(Kind.CODE_INVALID, "Slot.status")]),
    "code of the participant": (
        appointment(participant=[{"type": [{"text": "x"}], "status": "maybe"}]),
        [(Kind.CODE_INVALID, "Appointment.participant[0].status")],
    ),
    "two missing elements": (
        {"resourceType": "Slot", **PERIOD},
        [(Kind.REQUIRED, "Slot.schedule"), (Kind.REQUIRED, "Slot.status")],
    ),
    "missing participant": (appointment(participant=...), [(Kind.REQUIRED, "Appointment.participant")]),
    "empty array": (appointment(slot=[]), [(Kind.STRUCTURE, "Appointment.slot")]),
    "empty object": (slot(appointmentType={}), [(Kind.STRUCTURE, "Slot.appointmentType")]),
    "nothing but an id": (slot(appointmentType={"id": "x"}), [(Kind.STRUCTURE, "Slot.appointmentType")]),
    "empty text": (slot(comment=""), [(Kind.VALUE, "Slot.comment")]),
    "null": (slot(comment=None), [(Kind.STRUCTURE, "Slot.comment")]),
    "null in an array": (appointment(slot=[None]), [(Kind.STRUCTURE, "Appointment.slot[0]")]),
    "array for one": (slot(status=["free"]), [(Kind.STRUCTURE, "Slot.status")]),
    "one for array": (schedule(actor={"reference": "Device/1"}), [(Kind.STRUCTURE, "Schedule.actor")]),
    "object for text": (slot(comment={}), [(Kind.STRUCTURE, "Slot.comment")]),
    "text for object": (slot(schedule="Schedule/1"), [(Kind.STRUCTURE, "Slot.schedule")]),
    "number for instant": (slot(start=1700000000), [(Kind.STRUCTURE, "Slot.start")]),
    "text for boolean": (slot(overbooked="true"), [(Kind.STRUCTURE, "Slot.overbooked")]),
    "true for a number": (appointment(priority=True), [(Kind.STRUCTURE, "Appointment.priority")]),
    "text for a number": (appointment(priority="5"), [(Kind.STRUCTURE, "Appointment.priority")]),
    "fraction for an integer": (appointment(priority=Decimal("5.0")), [(Kind.STRUCTURE, "Appointment.priority")]),
    "negative unsignedInt": (appointment(priority=-1), [(Kind.VALUE, "Appointment.priority")]),
    "positiveInt of 0": (appointment(minutesDuration=0), [(Kind.VALUE, "Appointment.minutesDuration")]),
    "integer beyond 31 bits": (appointment(priority=2**31), [(Kind.VALUE, "Appointment.priority")]),
    "instant without offset": (slot(start="2026-06-02T09:00:00"), [(Kind.VALUE, "Slot.start")]),
    "instant without seconds": (slot(start="2026-06-02T09:00Z"), [(Kind.VALUE, "Slot.start")]),
    "instant of a day": (slot(start="2026-06-02"), [(Kind.VALUE, "Slot.start")]),
    "day that is not": (slot(start="2026-06-31T09:00:00Z"), [(Kind.VALUE, "Slot.start")]),
    "leap day of a common year": (slot(start="2026-02-29T09:00:00Z"), [(Kind.VALUE, "Slot.start")]),
    "leap day of 1900": (with_value("valueDate", "1900-02-29"), [(Kind.VALUE, "Schedule.extension[0].value")]),
    "hour 24": (slot(start="2026-06-02T24:00:00Z"), [(Kind.VALUE, "Slot.start")]),
    "other digits": (slot(start="２０２６-06-02T09:00:00Z"), [(Kind.VALUE, "Slot.start")]),
    "line end after the value": (slot(start="2026-06-02T09:00:00Z\n"), [(Kind.VALUE, "Slot.start")]),
    "date with a time but no zone": (appointment(created="2026-06-02T09:00:00"), [(Kind.VALUE, "Appointment.created")]),
    "time with an offset": (with_value("valueTime", "09:00:00Z"), [(Kind.VALUE, "Schedule.extension[0].value")]),
    "space in a URI": (slot(implicitRules="http://a b"), [(Kind.VALUE, "Slot.implicitRules")]),
    "code with two spaces": (slot(language="en  US"), [(Kind.VALUE, "Slot.language")]),
    "control character": (slot(comment="a\x0bb"), [(Kind.VALUE, "Slot.comment")]),
    "text of more than 1 MB": (slot(comment="a" * (1024 * 1024 + 1)), [(Kind.VALUE, "Slot.comment")]),
    "uuid in capitals": (
        with_value("valueUuid", "urn:uuid:123E4567-E89B-12D3-A456-426614174000"),
        [(Kind.VALUE, "Schedule.extension[0].value")],
    ),
    "oid with a leading zero": (with_value("valueOid", "urn:oid:1.02"), [(Kind.VALUE, "Schedule.extension[0].value")]),
    "base64 of three": (with_value("valueBase64Binary", "QUJ"), [(Kind.VALUE, "Schedule.extension[0].value")]),
    "base64 with padding inside": (
        with_value("valueBase64Binary", "QQ==QUJD"),
        [(Kind.VALUE, "Schedule.extension[0].value")],
    ),
    "decimal as text": (with_value("valueDecimal", "1.1"), [(Kind.STRUCTURE, "Schedule.extension[0].value")]),
    "arrays of unequal length": (
        patient_within(name=[{"given": ["A", None], "_given": [ABSENT]}]),
        [(Kind.STRUCTURE, "Appointment.contained[0].name[0].given")],
    ),
    "hole without extension": (
        patient_within(name=[{"given": ["A", None], "_given": [ABSENT, None]}]),
        [(Kind.STRUCTURE, "Appointment.contained[0].name[0].given[1]")],
    ),
    "extension that is no object": (slot(_status=[ABSENT]), [(Kind.STRUCTURE, "Slot.status")]),
    "unknown element in a primitive": (slot(_status={"value": "x"}), [(Kind.STRUCTURE, "Slot.status.value")]),
    "two values of one choice": (
        schedule(extension=[{"url": "http://x", "valueString": "a", "valueCode": "a"}]),
        [(Kind.STRUCTURE, "Schedule.extension[0].value")],
    ),
    "value of no type": (
        schedule(extension=[{"url": "http://x", "valueColour": "red"}]),
        [(Kind.STRUCTURE, "Schedule.extension[0].valueColour")],
    ),
    "extension without url": (schedule(extension=[{"valueCode": "a"}]), [(Kind.REQUIRED, "Schedule.extension[0].url")]),
    "extension with both": (
        schedule(extension=[{"url": "http://x", "valueCode": "a", "extension": [{"url": "y", "valueCode": "b"}]}]),
        [(Kind.INVARIANT, "Schedule.extension[0]")],
    ),
    "extension with neither": (schedule(extension=[{"url": "http://x"}]), [(Kind.INVARIANT, "Schedule.extension[0]")]),
    "app-1": (appointment(participant=[{"status": "accepted"}]), [(Kind.INVARIANT, "Appointment.participant[0]")]),
    "app-2": (appointment(status="proposed", end=...), [(Kind.INVARIANT, "Appointment")]),
    "app-3": (appointment(start=..., end=...), [(Kind.INVARIANT, "Appointment")]),
    "app-4": (appointment(cancelationReason={"text": "x"}), [(Kind.INVARIANT, "Appointment.cancelationReason")]),
    "per-1": (
        schedule(planningHorizon={"start": "2026-06-02T09:00:00Z", "end": "2026-06-02T10:00:00+02:00"}),
        [(Kind.INVARIANT, "Schedule.planningHorizon")],
    ),
    "per-1 in fractions": (
        schedule(planningHorizon={"start": "2026-06-02T09:00:00.12Z", "end": "2026-06-02T09:00:00.1Z"}),
        [(Kind.INVARIANT, "Schedule.planningHorizon")],
    ),
    "qty-3": (with_value("valueQuantity", {"code": "kg"}), [(Kind.INVARIANT, "Schedule.extension[0].value")]),
    "rng-2": (
        with_value("valueRange", {"low": {"value": Decimal("2.5")}, "high": {"value": 2}}),
        [(Kind.INVARIANT, "Schedule.extension[0].value")],
    ),
    "rat-1": (
        with_value("valueRatio", {"numerator": {"value": 1}}),
        [(Kind.INVARIANT, "Schedule.extension[0].value")],
    ),
    "cpt-2": (with_value("valueContactPoint", {"value": "1"}), [(Kind.INVARIANT, "Schedule.extension[0].value")]),
    "att-1": (with_value("valueAttachment", {"data": "QUJD"}), [(Kind.INVARIANT, "Schedule.extension[0].value")]),
    "tim-9": (
        with_value("valueTiming", {"repeat": {"offset": 1, "when": ["C"]}}),
        [(Kind.INVARIANT, "Schedule.extension[0].value.repeat.offset")],
    ),
    "wrong target": (slot(schedule={"reference": "Slot/1"}), [(Kind.VALUE, "Slot.schedule.reference")]),
    "wrong target at another server": (
        slot(schedule={"reference": "https://example.org/fhir/Patient/1/_history/3"}),
        [(Kind.VALUE, "Slot.schedule.reference")],
    ),
    "wrong type of an identifier": (
        slot(schedule={"identifier": {"value": "1"}, "type": "Patient"}),
        [(Kind.VALUE, "Slot.schedule.type")],
    ),
    "type that is not the reference's": (
        schedule(actor=[{"reference": "Patient/1", "type": "Device"}]),
        [(Kind.VALUE, "Schedule.actor[0].type")],
    ),
    "reference without a type": (slot(schedule={"reference": "sch-1"}), [(Kind.VALUE, "Slot.schedule.reference")]),
    "reference to no resource type": (
        schedule(actor=[{"reference": "Doctor/1"}]),
        [(Kind.VALUE, "Schedule.actor[0].reference")],
    ),
    "reference by search": (
        schedule(actor=[{"reference": "Patient?identifier=1"}]),
        [(Kind.VALUE, "Schedule.actor[0].reference")],
    ),
    "reference that says nothing": (slot(schedule={"type": "Schedule"}), [(Kind.INVARIANT, "Slot.schedule")]),
    "ref-1": (slot(schedule={"reference": "#s"}), [(Kind.INVARIANT, "Slot.schedule.reference")]),
    "contained of the wrong type": (
        slot(contained=[{"resourceType": "Patient", "id": "p"}], schedule={"reference": "#p"}),
        [(Kind.VALUE, "Slot.schedule.reference")],
    ),
    "contained without a type": (
        appointment(contained=[{"id": "p"}], supportingInformation=[{"reference": "#p"}]),
        [(Kind.REQUIRED, "Appointment.contained[0].resourceType")],
    ),
    "contained of an unknown type": (
        appointment(contained=[{"resourceType": "Nope", "id": "p"}], supportingInformation=[{"reference": "#p"}]),
        [(Kind.STRUCTURE, "Appointment.contained[0].resourceType")],
    ),
    "error in a contained resource": (
        patient_within(gender="?"),
        [(Kind.CODE_INVALID, "Appointment.contained[0].gender")],
    ),
    "contained without an id": (
        appointment(contained=[{"resourceType": "Patient"}]),
        [(Kind.REQUIRED, "Appointment.contained[0].id")],
    ),
    "dom-2": (
        patient_within(contained=[{"resourceType": "Patient", "id": "q"}]),
        [(Kind.INVARIANT, "Appointment.contained[0].contained")],
    ),
    "dom-3": (
        appointment(contained=[{"resourceType": "Patient", "id": "p"}]),
        [(Kind.INVARIANT, "Appointment.contained[0]")],
    ),
    "dom-4": (
        patient_within(meta={"versionId": "1", "lastUpdated": "2026-06-02T09:00:00Z"}),
        [
            (Kind.INVARIANT, "Appointment.contained[0].meta.versionId"),
            (Kind.INVARIANT, "Appointment.contained[0].meta.lastUpdated"),
        ],
    ),
    "dom-5": (
        patient_within(meta={"security": [{"code": "R"}]}),
        [(Kind.INVARIANT, "Appointment.contained[0].meta.security")],
    ),
    "script": (narrative(f"<div {XHTML}><script>x</script></div>"), [(Kind.INVARIANT, "Schedule.text.div")]),
    "event": (narrative(f'<div {XHTML}><p onclick="x">x</p></div>'), [(Kind.INVARIANT, "Schedule.text.div")]),
    "link that runs": (
        narrative(f'<div {XHTML}><a href=" java&#9;script:x">x</a></div>'),
        [(Kind.INVARIANT, "Schedule.text.div")],
    ),
    "entity": (
        narrative(f'<!DOCTYPE div [<!ENTITY a "b">]><div {XHTML}>&a;</div>'),
        [(Kind.INVARIANT, "Schedule.text.div")],
    ),
    "entity of HTML": (narrative(f"<div {XHTML}>&nbsp;</div>"), [(Kind.INVARIANT, "Schedule.text.div")]),
    "narrative in no namespace": (narrative("<div>x</div>"), [(Kind.INVARIANT, "Schedule.text.div")]),
    "narrative that is broken": (narrative(f"<div {XHTML}><p></div>"), [(Kind.INVARIANT, "Schedule.text.div")]),
    "narrative without content": (narrative(f"<div {XHTML}> </div>"), [(Kind.INVARIANT, "Schedule.text.div")]),
}


@pytest.mark.parametrize("resource", SOUND.values(), ids=SOUND.keys())
def test_sound_resources_have_no_issue(resource: dict[str, Any]) -> None:
    assert resource_issues(resource, resource["resourceType"]) == []


@pytest.mark.parametrize(("resource", "expected"), WRONG.values(), ids=WRONG.keys())
def test_each_fault_is_named_with_its_place(resource: dict[str, Any], expected: list[tuple[Kind, str]]) -> None:
    assert complaints(resource) == expected


@pytest.mark.parametrize("resource", [None, 1, "x", [], {}, {"resourceType": 1}, {"resourceType": "Nope"}, SLOT])
def test_what_is_no_appointment_is_refused_as_one(resource: Any) -> None:
    assert len(resource_issues(resource, "Appointment")) == 1


def test_a_sentence_names_the_codes_that_would_be_right() -> None:
    (issue,) = resource_issues(slot(status="no"), "Slot")
    assert "busy, free, busy-unavailable, busy-tentative, entered-in-error" in issue.diagnostics
    (issue,) = resource_issues(appointment(cancellationReason={"text": "x"}), "Appointment")
    assert "Is cancelationReason meant?" in issue.diagnostics


def test_references_by_search_are_allowed_in_a_transaction() -> None:
    resource = schedule(actor=[{"reference": "Patient?identifier=1"}])
    assert resource_issues(resource, "Schedule", in_transaction=True) == []
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": resource}]}
    assert resource_issues(bundle, "Bundle") == []


def test_entries_of_a_bundle_are_looked_into_unless_they_are_left_to_others() -> None:
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": slot(status="no")}]}
    assert complaints(bundle) == [(Kind.CODE_INVALID, "Bundle.entry[0].resource.status")]
    assert resource_issues(bundle, "Bundle", nested=False) == []


def test_no_more_than_fifty_issues_are_listed() -> None:
    assert len(resource_issues(schedule(actor=[{"reference": "Slot/1"}] * 10_000), "Schedule")) == 50
    assert len(resource_issues(schedule(**{f"a{n}": n for n in range(10_000)}), "Schedule")) == 50


def test_nesting_without_end_is_an_issue_and_no_crash() -> None:
    extension: dict[str, Any] = {"url": "http://x", "valueCode": "a"}
    for _ in range(5_000):
        extension = {"url": "http://x", "extension": [extension]}
    assert complaints(schedule(extension=[extension])) == [(Kind.STRUCTURE, "Schedule")]


def test_a_value_is_shown_shortened() -> None:
    (issue,) = resource_issues(slot(language="ä " * 100_000), "Slot")
    assert len(issue.diagnostics) < 500


EXAMPLES = sorted((SPEC / "fhir-r4" / "examples").glob("*.json"))


@needs_spec
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_published_examples_are_sound(path: Path) -> None:
    resource = document.parse(path.read_bytes())
    assert resource_issues(resource, resource["resourceType"]) == []


def vectors(name: str) -> Any:
    path = SPEC / "own-examples" / "test-vectors" / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


@needs_spec
@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["name"]) for v in vectors("appointment-validity-vectors.json")]
)
def test_appointments_are_judged_as_the_vectors_say(vector: dict[str, Any]) -> None:
    assert (resource_issues(vector["resource"], "Appointment") == []) is vector["valid"]


@needs_spec
def test_ids_are_judged_as_the_vectors_say() -> None:
    known = vectors("id-vectors.json")
    assert [text for text in known["valid"] if complaints(slot(id=text))] == []
    assert [text for text in known["invalid"] if not complaints(slot(id=text))] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text() | st.sampled_from(["#", "Patient/1", "2026"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(APPOINTMENT)) | st.text(), inner, max_size=5)
    ),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@given(JSON)
def test_any_json_is_judged_without_a_crash(value: Any) -> None:
    resource_issues(value, "Appointment")
    if isinstance(value, dict):
        resource_issues({**value, "resourceType": "Appointment"}, "Appointment")


WHOLE = json.dumps(
    appointment(
        contained=[{"resourceType": "Patient", "id": "p", "name": [{"given": ["A"], "_given": [ABSENT]}]}],
        extension=[{"url": "http://x", "valuePeriod": {"start": "2026", "end": "2027"}}],
        requestedPeriod=[{"start": "2026", "end": "2027"}],
        reasonReference=[{"reference": "#p"}],
        text={"status": "generated", "div": f"<div {XHTML}>x</div>"},
    )
)


@settings(max_examples=300)
@given(st.data())
def test_any_change_of_an_appointment_is_judged_without_a_crash(data: st.DataObject) -> None:
    resource = json.loads(WHOLE)
    *above, last = data.draw(st.sampled_from(list(places(resource))))
    owner = resource
    for key in above:
        owner = owner[key]
    owner[last] = data.draw(JSON)
    before = copy.deepcopy(resource)
    resource_issues(resource, "Appointment")
    assert resource == before or str(resource) == str(before)  # NaN is not equal to itself
