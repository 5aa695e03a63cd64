"""FHIRPath Patch on documents: the published cases, the rules of each operation, paths, criteria, attacks."""

from __future__ import annotations

import copy
import time
import xml.etree.ElementTree as ET
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_sched import document
from fhir_sched.outcome import FhirError
from fhir_sched.patch.fhirpath_patch import apply_fhirpath_patch
from fhir_sched.patch.limits import MAX_BYTES
from fhir_sched.validate import resource_issues
from fhir_sched.xml import from_xml

CASES = Path(__file__).parents[3] / "shared/spec/fhir-test-cases-patch/r4-fhir-patch-tests.xml"
EXTENSION = "http://example.org/note"

SLOT: dict[str, Any] = {"valueReference": {"reference": "Slot/1"}}
PATIENT: dict[str, Any] = {"valueReference": {"reference": "Patient/1"}}
YEAR: dict[str, Any] = {"valueDateTime": "2026"}
CONCEPT: dict[str, Any] = {"valueCodeableConcept": {"text": "x"}}
RESOURCE: dict[str, Any] = {"resource": {"resourceType": "Location", "id": "l"}}
STATUS: dict[str, Any] = {"name": "status", "valueCode": "x"}
NOTE: list[dict[str, Any]] = [{"name": "url", "valueUri": EXTENSION}, {"name": "value", "valueCode": "x"}]

APPOINTMENT: dict[str, Any] = {
    "resourceType": "Appointment",
    "id": "apt-1",
    "meta": {"versionId": "3", "lastUpdated": "2026-06-01T00:00:00Z"},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">booked</div>'},
    "extension": [
        {"url": EXTENSION, "valueString": "first"},
        {"url": EXTENSION + "2", "valueDecimal": Decimal("1.10")},
    ],
    "status": "booked",
    "priority": 0,
    "start": "2026-06-02T09:00:00Z",
    "_start": {"extension": [{"url": EXTENSION, "valueBoolean": False}]},
    "end": "2026-06-02T09:15:00Z",
    "participant": [
        {"actor": {"reference": "Patient/1", "display": "O'Neil"}, "status": "accepted"},
        {
            "type": [{"coding": [{"system": "http://example.org", "code": "ATND"}]}],
            "actor": {"reference": "Practitioner/1"},
            "status": "tentative",
        },
    ],
    "contained": [
        {
            "resourceType": "Patient",
            "id": "p",
            "name": [{"given": ["Ann", None, "Eve"], "_given": [None, {"id": "x"}, None]}],
            "deceasedBoolean": False,
        }
    ],
    "supportingInformation": [{"reference": "#p"}],
}


def _operation(kind: str, path: str, **parts: Any) -> dict[str, Any]:
    """One operation; a part is a number, a text, a dict of `value[x]` members, or a list of parts."""
    listed: list[dict[str, Any]] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    for name, given_part in parts.items():
        match given_part:
            case dict():
                listed.append({"name": name, **given_part})
            case list():
                listed.append({"name": name, "part": given_part})
            case int():
                listed.append({"name": name, "valueInteger": given_part})
            case _:
                listed.append({"name": name, "valueString": given_part})
    return {"name": "operation", "part": listed}


def _parameters(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", **({"parameter": list(operations)} if operations else {})}


def _patched(*operations: dict[str, Any]) -> dict[str, Any]:
    before, parameters = copy.deepcopy(APPOINTMENT), _parameters(*operations)
    sent = copy.deepcopy(parameters)
    shown = apply_fhirpath_patch(APPOINTMENT, parameters)
    assert (APPOINTMENT, parameters) == (before, sent), "neither the document nor the patch is changed"
    return shown


def _refused(*operations: dict[str, Any]) -> FhirError:
    with pytest.raises(FhirError) as caught:
        _patched(*operations)
    return caught.value


def _published() -> list[Any]:
    if not CASES.exists():
        return []
    return [pytest.param(case, id=case.get("name")) for case in ET.parse(CASES).getroot()]


def _resource(case: ET.Element, name: str) -> dict[str, Any]:
    (resource,) = case.findall(f"{name}/*")
    return from_xml(ET.tostring(resource))


def _narrative(resource: dict[str, Any]) -> str:
    return ET.canonicalize(resource["text"]["div"], rewrite_prefixes=True)


@pytest.mark.skipif(not CASES.exists(), reason="the published cases are not here")
@pytest.mark.parametrize("case", _published())
def test_the_published_cases(case: ET.Element) -> None:
    before, parameters = _resource(case, "input"), _resource(case, "diff")
    if case.find("error") is not None:
        with pytest.raises(FhirError):
            apply_fhirpath_patch(before, parameters)
        return
    after, wanted = apply_fhirpath_patch(before, parameters), _resource(case, "output")
    if "text" in after:  # how a narrative writes its namespace is XML's affair
        after["text"], wanted["text"] = (_narrative(each) for each in (after, wanted))
    assert after == wanted


@pytest.mark.parametrize(
    ("operation", "name", "after"),
    [
        (_operation("replace", "Appointment.status", value={"valueCode": "arrived"}), "status", "arrived"),
        (_operation("replace", "status", value={"valueCode": "arrived"}), "status", "arrived"),
        (_operation("replace", "Resource.status", value={"valueCode": "arrived"}), "status", "arrived"),
        (_operation("replace", "Appointment.`status`", value={"valueString": "arrived"}), "status", "arrived"),
        (_operation("replace", "Appointment.priority", value={"valueUnsignedInt": 3}), "priority", 3),
        (_operation("replace", "Appointment.priority", value={"valueInteger": 3}), "priority", 3),
        (_operation("add", "Appointment", name="comment", value="x"), "comment", "x"),
        (_operation("add", "Appointment", name="minutesDuration", value=15), "minutesDuration", 15),
        (_operation("delete", "Appointment.priority"), "priority", None),
        (_operation("delete", "Appointment.comment"), "comment", None),
        (_operation("delete", "Appointment.participant[5]"), "priority", 0),
        (_operation("delete", "Appointment.start"), "start", None),
        (_operation("delete", "Appointment.start"), "_start", None),
        (_operation("replace", "Appointment.start", value={"valueInstant": "2026-06-02T08:00:00Z"}), "_start", None),
        (_operation("delete", "Appointment.start.extension[0]"), "_start", None),
        (_operation("delete", "Appointment.start.extension[0]"), "start", APPOINTMENT["start"]),
        (
            _operation("add", "Appointment.end", name="extension", value=NOTE),
            "_end",
            {"extension": [{"url": EXTENSION, "valueCode": "x"}]},
        ),
        (
            _operation("add", "Appointment", name="slot", value=SLOT),
            "slot",
            [{"reference": "Slot/1"}],
        ),
        (
            _operation("insert", "Appointment.slot", index=0, value=SLOT),
            "slot",
            [{"reference": "Slot/1"}],
        ),
        (
            _operation("replace", f"Appointment.extension('{EXTENSION}').value", value={"valueInteger": 7}),
            "extension",
            [{"url": EXTENSION, "valueInteger": 7}, APPOINTMENT["extension"][1]],
        ),
        (_operation("delete", f"Appointment.extension('{EXTENSION}')"), "extension", APPOINTMENT["extension"][1:]),
        (
            _operation("move", "Appointment.participant", source=1, destination=0),
            "participant",
            APPOINTMENT["participant"][::-1],
        ),
    ],
)  # fmt: skip
def test_each_operation(operation: dict[str, Any], name: str, after: Any) -> None:
    assert _patched(operation).get(name) == after


def test_a_participant_is_given_by_parts_named_like_its_elements() -> None:
    coding = {"coding": [{"code": "PPRF"}]}
    parts = [
        {"name": "type", "valueCodeableConcept": coding},
        {"name": "type", "valueCodeableConcept": {"text": "second"}},
        {"name": "actor", "valueReference": {"reference": "Location/1"}},
        {"name": "required", "valueCode": "required"},
        {"name": "status", "valueCode": "accepted"},
    ]
    made = {
        "type": [coding, {"text": "second"}],
        "actor": {"reference": "Location/1"},
        "required": "required",
        "status": "accepted",
    }
    listed = APPOINTMENT["participant"]
    assert _patched(_operation("add", "Appointment", name="participant", value=parts))["participant"] == [*listed, made]
    assert _patched(_operation("insert", "Appointment.participant", index=1, value=parts))["participant"] == [
        listed[0], made, listed[1],
    ]  # fmt: skip
    assert _patched(_operation("replace", "Appointment.participant[0]", value=parts))["participant"] == [
        made,
        listed[1],
    ]


def test_lists_of_primitives_keep_their_extensions_aligned() -> None:
    name = "Appointment.contained[0].name[0]"
    shown = _patched(
        _operation("insert", f"{name}.given", index=0, value={"valueString": "Zoe"}),
        _operation("move", f"{name}.given", source=2, destination=3),
        _operation("delete", f"{name}.given[1]"),
    )
    (patient,) = shown["contained"]
    assert patient["name"] == [{"given": ["Zoe", "Eve", None], "_given": [None, None, {"id": "x"}]}]


def test_a_choice_takes_another_of_its_types() -> None:
    path = "Appointment.contained.ofType(Patient).deceased"
    shown = _patched(_operation("replace", path, value={"valueDateTime": "2026-01-01"}))
    assert {key: value for key, value in shown["contained"][0].items() if "deceased" in key} == {
        "deceasedDateTime": "2026-01-01"
    }


def test_a_contained_resource_is_added_as_a_resource() -> None:
    shown = _patched(
        _operation("add", "Appointment", name="contained", value={"resource": {"resourceType": "Location", "id": "l"}})
    )
    assert shown["contained"][1] == {"resourceType": "Location", "id": "l"}


def test_operations_see_what_those_before_them_did_and_empty_elements_go_at_the_end() -> None:
    shown = _patched(
        _operation("delete", "Appointment.participant[1].type[0].coding[0]"),
        _operation("add", "Appointment", name="comment", value="x"),
        _operation("replace", "Appointment.comment", value={"valueString": "y"}),
    )
    assert "type" not in shown["participant"][1]
    assert shown["comment"] == "y"


@pytest.mark.parametrize(
    ("path", "positions"),
    [
        ("Appointment.participant[0]", [0]),
        ("Appointment.participant.first()", [0]),
        ("Appointment.participant.last()", [1]),
        ("Appointment.participant.tail()", [1]),
        ("Appointment.participant.skip(1)", [1]),
        ("Appointment.participant.take(1)", [0]),
        ("Appointment.participant[1].single()", [1]),
        ("Appointment . participant [ 1 ]", [1]),
        ("Appointment.participant.where(status = 'tentative')", [1]),
        ("Appointment.participant.where(actor.reference='Patient/1')", [0]),
        ("Appointment.participant.where(actor.display = 'O\\'Neil')", [0]),
        ("Appointment.participant.where(actor.reference.startsWith('Prac'))", [1]),
        ("Appointment.participant.where(type.coding.where(code='ATND').exists())", [1]),
        ("Appointment.participant.where(type.empty() and status != 'declined')", [0]),
        ("Appointment.participant.where(status in ('declined' | 'tentative'))", [1]),
        ("Appointment.participant.where($this.status = 'accepted').where(true)", [0]),
        ("Appointment.where(status = 'booked').participant[0]", [0]),
        ("Appointment.participant.where(false)", []),
        ("Appointment.participant.where(nothing)", []),
        ("Appointment.participant[7]", []),
    ],
)
def test_a_path_names_elements_by_place_or_by_criteria(path: str, positions: list[int]) -> None:
    shown = _patched(_operation("delete", path))
    left = [each for index, each in enumerate(APPOINTMENT["participant"]) if index not in positions]
    assert shown["participant"] == left


@pytest.mark.parametrize(
    ("operation", "status", "said"),
    [
        (_operation("replace", "Appointment.comment", value="x"), 422, "no element"),
        (_operation("replace", "Appointment.participant", value=[]), 400, ""),
        (_operation("replace", "Appointment.participant", value="x"), 422, "2 elements"),
        (_operation("replace", "Appointment", value="x"), 422, "the resource itself"),
        (_operation("delete", "Appointment"), 422, "the resource itself"),
        (_operation("delete", "Appointment.participant"), 422, "2 elements"),
        (_operation("delete", "Appointment.participant.single()"), 422, "single"),
        (_operation("delete", "Appointment.nothing"), 422, "no element 'nothing'"),
        (_operation("delete", "Appointment.valueCode"), 422, "no element"),
        (_operation("delete", "Appointment.resourceType"), 422, "no element"),
        (_operation("delete", "Appointment._start"), 422, "no element"),
        (_operation("delete", "Slot.status"), 422, "the resource is an Appointment"),
        (_operation("add", "Appointment", name="status", value={"valueCode": "x"}), 422, "already"),
        (_operation("add", "Appointment", name="priority", value={"valueUnsignedInt": 1}), 422, "already"),
        (_operation("add", "Appointment.contained[0]", name="deceased", value=YEAR), 422, "already"),
        (_operation("add", "Appointment.requestedPeriod", name="start", value=YEAR), 422, "no element"),
        (_operation("add", "Appointment", name="nothing", value="x"), 422, "no element 'nothing'"),
        (_operation("add", "Appointment", name="comment", value={"valueInteger": 1}), 422, "valueString"),
        (_operation("add", "Appointment", name="comment", value=RESOURCE), 422, "valueString"),
        (_operation("add", "Appointment", name="participant", value=PATIENT), 422, "parts"),
        (_operation("add", "Appointment", name="comment", value=[STATUS]), 422, "valueString"),
        (_operation("add", "Appointment", name="participant", value=[{**STATUS, "name": "x"}]), 422, "element 'x'"),
        (_operation("add", "Appointment", name="participant", value=[STATUS] * 2), 422, "once"),
        (_operation("add", "Appointment", name="comment"), 400, "'value'"),
        (_operation("add", "Appointment", value="x"), 400, "'name'"),
        (_operation("replace", "Appointment.status"), 400, "'value'"),
        (_operation("insert", "Appointment.participant", value=[STATUS]), 400, "'index'"),
        (_operation("insert", "Appointment.slot", index=1, value=SLOT), 422, "0 to 0"),
        (_operation("insert", "Appointment.slot", index=-1, value=SLOT), 422, "-1"),
        (_operation("insert", "Appointment.slot[0]", index=0, value=SLOT), 422, "name of the list"),
        (_operation("insert", "Appointment.status", index=0, value={"valueCode": "x"}), 422, "no list"),
        (_operation("insert", "participant.type", index=0, value=CONCEPT), 422, "2 elements"),
        (_operation("move", "Appointment.participant", source=0, destination=2), 422, "destination 2"),
        (_operation("move", "Appointment.participant", source=-1, destination=0), 422, "source -1"),
        (_operation("move", "Appointment.slot", source=0, destination=0), 422, "empty"),
        (_operation("move", "Appointment.participant", source=0), 400, "'destination'"),
        (_operation("update", "Appointment.status"), 400, "'update'"),
        (_operation("delete", ""), 400, ""),
        (_operation("replace", "Appointment.id", value={"valueId": "apt-2"}), 422, "id"),
        (_operation("delete", "Appointment.meta"), 422, "meta.versionId"),
        (_operation("replace", "Appointment.meta.versionId", value={"valueId": "9"}), 422, "meta.versionId"),
        ({"name": "operate", "part": _operation("delete", "Appointment.status")["part"]}, 400, "'operate'"),
        ({"name": "operation", "part": _operation("delete", "status")["part"] * 2}, 400, "once"),
        ({"name": "operation"}, 400, "inv-1"),
        ({"name": "operation", "part": [{"name": "type", "valueCode": "delete"}]}, 400, "'path'"),
        ({"part": []}, 400, ""),
    ],
)  # fmt: skip
def test_a_refusal_names_the_operation_and_why(operation: dict[str, Any], status: int, said: str) -> None:
    error = _refused(operation)
    assert (error.status, said in str(error)) == (status, True), str(error)


def test_a_refusal_says_where_in_the_patch() -> None:
    error = _refused(
        _operation("delete", "Appointment.comment"), _operation("replace", "Appointment.nothing", value="x")
    )
    (issue,) = error.issues
    assert issue.expression == "Parameters.parameter[1]"
    assert issue.diagnostics.startswith("operation 2 (replace Appointment.nothing): ")


@pytest.mark.parametrize(
    "path",
    [
        "Appointment.",
        ".status",
        "Appointment..status",
        "Appointment.status]",
        "Appointment.status extra",
        "Appointment[a]",
        "Appointment[-1]",
        "Appointment[99999999999999999999]",
        "Appointment.participant.where(",
        "Appointment.participant.where('",
        "Appointment.participant.where(a))",
        "Appointment.participant.where()",
        "Appointment.participant.first(1)",
        "Appointment.participant.skip('a')",
        "Appointment.participant.extension(url)",
        "Appointment.participant.where(a = )",
        "Appointment.participant.where(a b)",
        "Appointment.participant.where(\u2028)",
        "Appointment.status | Appointment.priority",
        "Appointment.participant.actor.resolve()",
        "Appointment.descendants()",
        "Appointment.repeat(participant)",
        "%resource.status",
        "$this.status",
        "1",
        "'a'",
        "Appointment.participant.where(status.matches('(a+)+$'))",
        "Appointment.participant.where(status.replaceMatches('(a+)+$', ''))",
        "Appointment.participant.where(actor.resolve().exists())",
        "Appointment.participant.where(repeat(type).exists())",
        "Appointment.participant.where(%resource.status = 'booked')",
        "Appointment.participant.where(1 + 1 = 2)",
        "Appointment.participant.where(now() > @2020)",
        "Appointment.participant.where(type.where(coding.where(code.where(true).exists()).exists()).exists())",
    ],
)
def test_what_is_no_path_of_a_patch_is_400(path: str) -> None:
    error = _refused(_operation("delete", path))
    assert error.status == 400
    assert "operation 1" in str(error)


def test_criteria_that_do_not_fit_are_422() -> None:
    assert _refused(_operation("delete", "Appointment.participant.where(status > 1)")).status == 422


@pytest.mark.parametrize(
    "parameters", [None, [], "x", {}, {"resourceType": "Appointment"}, {"resourceType": "Parameters", "parameter": {}}]
)
def test_what_is_no_parameters_resource_is_400(parameters: Any) -> None:
    with pytest.raises(FhirError) as caught:
        apply_fhirpath_patch(APPOINTMENT, parameters)
    assert caught.value.status == 400


def test_an_empty_patch_changes_nothing_not_even_the_narrative() -> None:
    assert _patched() == APPOINTMENT


def test_a_generated_narrative_goes_unless_it_is_patched_too() -> None:
    cancel = _operation("replace", "Appointment.status", value={"valueCode": "cancelled"})
    new = '<div xmlns="http://www.w3.org/1999/xhtml">cancelled</div>'
    assert "text" not in _patched(cancel)
    assert _patched(cancel, _operation("replace", "Appointment.text.div", value=new))["text"]["div"] == new


def test_decimals_keep_their_digits() -> None:
    shown = _patched(_operation("add", "Appointment", name="comment", value="x"))
    assert b'"valueDecimal":1.10' in document.dumps(shown)


def _wide(count: int) -> dict[str, Any]:
    return {**APPOINTMENT, "participant": [{"status": "accepted"}] * count}


def _deletes(criteria: str, times: int = 1) -> dict[str, Any]:
    return _parameters(*[_operation("delete", f"Appointment.participant.where({criteria})")] * times)


_LONG = _operation("add", "Appointment", name="comment", value="x" * MAX_BYTES)
_MANY = [f"Appointment.participant.where({' and '.join(['a=1'] * 20)} and b={number})" for number in range(100)]
_TYPES: list[dict[str, Any]] = [{} for _ in range(5_000)]
ATTACKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ten thousand operations": (APPOINTMENT, _parameters(*[_operation("delete", "Appointment.comment")] * 10_000)),
    "a large patch": (APPOINTMENT, _parameters(_LONG)),
    "paths through many elements": (
        _wide(20_000),
        _parameters(*[_operation("delete", "Appointment.participant.last()")] * 100),
    ),
    "criteria on many elements": (_wide(20_000), _deletes("status = 'a' or status = 'b' or status = 'c'")),
    "many different criteria": (_wide(20), _parameters(*[_operation("delete", path) for path in _MANY])),
    "criteria on a wide element": (
        {**APPOINTMENT, "participant": [{"type": _TYPES}]},
        _deletes(f"type.exists({' or '.join(['a = 1'] * 15)})", 100),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_at_once(name: str) -> None:
    doc, parameters = ATTACKS[name]
    started = time.thread_time()
    with pytest.raises(FhirError) as caught:
        apply_fhirpath_patch(doc, parameters)
    assert caught.value.status == 413
    assert time.thread_time() - started < 3


@pytest.mark.parametrize(
    "path",
    [
        "(" * 5_000,
        "Appointment" + ".extension" * 5_000,
        "Appointment.participant.where(" + "(" * 150 + "true" + ")" * 150 + ")",
        "Appointment.participant.where(" + "-" * 190 + "1)",
        "Appointment.participant.where(" + "a.where(" * 20 + "true" + ")" * 21,
        "Appointment.participant.where(" + "1=1 and " * 24 + "(a)",
        "Appointment.participant.where('" + "\\" * 400,
        "Appointment.participant.where(" + "'" * 401,
    ],
)
def test_a_deep_or_long_path_is_refused_at_once(path: str) -> None:
    started = time.thread_time()
    assert _refused(_operation("delete", path)).status == 400
    assert time.thread_time() - started < 1


_STEPS = """
    Appointment Slot status participant participant[0] actor reference start extension contained[0] name given given[1]
    deceased text div meta id url value first() last() where(true) where(status='accepted') where(a.b=c) where( ) [0]
    ofType(Patient) skip(1)
"""
_PATHS = st.lists(
    st.sampled_from([*_STEPS.split(), f"extension('{EXTENSION}')"]) | st.text(max_size=3), max_size=5
).map(".".join)
_MEMBERS: dict[str, Any] = {
    "valueString": "x", "valueCode": "arrived", "valueInteger": 1, "valueBoolean": True, "valueDecimal": Decimal("1.0"),
    "valueReference": {"reference": "Patient/2"}, "valueInstant": "2026-06-02T09:00:00Z", **RESOURCE,
    "part": [{"name": "status", "valueCode": "accepted"}],
}  # fmt: skip
_RANDOM = st.builds(
    lambda kind, path, name, number, member: _operation(
        kind, path, name=name, index=number, source=number, destination=0, value={member: _MEMBERS[member]}
    ),
    st.sampled_from(["add", "insert", "delete", "replace", "move", "x"]),
    _PATHS,
    st.sampled_from(
        ["participant", "comment", "extension", "value", "given", "id", "contained", "deceased", "nothing"]
    ),
    st.integers(-1, 3),
    st.sampled_from(sorted(_MEMBERS)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_RANDOM, min_size=1, max_size=4))
def test_a_random_patch_is_done_or_refused(operations: list[dict[str, Any]]) -> None:
    try:
        shown = _patched(*operations)
    except FhirError as refused:
        shown = {"id": "apt-1", "status": refused.status}
    assert shown["id"] == "apt-1"
    resource_issues(shown, "Appointment")
