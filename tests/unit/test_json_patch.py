"""JSON Patch on documents: the published cases, what is malformed, what attacks, what a patch may not touch."""

from __future__ import annotations

import copy
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_sched import document
from fhir_sched.outcome import FhirError
from fhir_sched.patch.json_patch import apply_json_patch
from fhir_sched.patch.limits import MAX_BYTES, MAX_OPERATIONS

CASES = Path(__file__).parents[3] / "shared/spec/fhir-test-cases-patch/r4-json-patch-tests.json"

APPOINTMENT: dict[str, Any] = {
    "resourceType": "Appointment",
    "id": "apt-1",
    "meta": {"versionId": "3", "lastUpdated": "2026-06-01T00:00:00Z"},
    "text": {"status": "generated", "div": "<div>booked</div>"},
    "status": "booked",
    "priority": 1,
    "comment": None,
    "slot": [{"reference": "Slot/1"}, {"reference": "Slot/2"}],
    "a/b": {"m~n": 8},
    "extension": [{"url": "http://example.org/weight", "valueDecimal": Decimal("1.10")}],
}


def _refused(operations: Any, doc: dict[str, Any] | None = None) -> FhirError:
    given_document = APPOINTMENT if doc is None else doc
    before = copy.deepcopy(given_document)
    with pytest.raises(FhirError) as caught:
        apply_json_patch(given_document, operations)
    assert given_document == before, "a refused patch changes nothing"
    return caught.value


def _patched(*operations: dict[str, Any]) -> dict[str, Any]:
    return apply_json_patch(APPOINTMENT, list(operations))


@pytest.mark.skipif(not CASES.exists(), reason="the published cases are not here")
def test_the_published_cases() -> None:
    cases = json.loads(CASES.read_bytes())
    assert len(cases) > 15
    for case in cases:
        if "error" in case:
            assert _refused(case["patch"], case["doc"]).status == 422, case["comment"]
        else:
            assert apply_json_patch(case["doc"], case["patch"]) == case["expected"], case["comment"]


@pytest.mark.parametrize(
    ("operation", "path", "after"),
    [
        ({"op": "add", "path": "/minutesDuration", "value": 15}, "minutesDuration", 15),
        ({"op": "add", "path": "/status", "value": "arrived"}, "status", "arrived"),
        ({"op": "replace", "path": "/status", "value": "arrived"}, "status", "arrived"),
        ({"op": "remove", "path": "/slot/0"}, "slot", [{"reference": "Slot/2"}]),
        (
            {"op": "move", "from": "/slot/0", "path": "/slot/-"},
            "slot",
            [{"reference": "Slot/2"}, {"reference": "Slot/1"}],
        ),
        ({"op": "copy", "from": "/priority", "path": "/minutesDuration"}, "minutesDuration", 1),
        ({"op": "replace", "path": "/a~1b/m~0n", "value": 9}, "a/b", {"m~n": 9}),
        ({"op": "remove", "path": "/comment"}, "comment", None),
        ({"op": "replace", "path": "/status", "value": "arrived", "from": 7, "why": {}}, "status", "arrived"),
    ],
)
def test_each_operation(operation: dict[str, Any], path: str, after: Any) -> None:
    assert _patched(operation).get(path) == after


@pytest.mark.parametrize(
    ("path", "value", "holds"),
    [
        ("/priority", 1, True),
        ("/priority", Decimal("1.0"), True),
        ("/priority", True, False),
        ("/priority", "1", False),
        ("/extension/0/valueDecimal", Decimal("1.1"), True),
        ("/extension/0/valueDecimal", Decimal("1.2"), False),
        ("/comment", None, True),
        ("/comment", False, False),
        ("/nothing", None, False),
        ("/slot/-", None, False),
        ("/slot", [{"reference": "Slot/1"}, {"reference": "Slot/2"}], True),
        ("/slot", {}, False),
    ],
)
def test_a_test_compares_as_json_does(path: str, value: Any, holds: bool) -> None:
    operation = {"op": "test", "path": path, "value": value}
    if holds:
        assert _patched(operation) == APPOINTMENT
    else:
        assert _refused([operation]).status == 422


@pytest.mark.parametrize(
    "operations",
    [
        {"op": "add", "path": "/a", "value": 1},
        "add",
        None,
        [None],
        ["add"],
        [[]],
        [{}],
        [{"op": "merge", "path": "/a", "value": 1}],
        [{"op": "append", "path": "/status", "value": "x"}],
        [{"op": ["add"], "path": "/a", "value": 1}],
        [{"op": None, "path": "/a", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "value": 1}],
        [{"op": "replace", "path": "/status"}],
        [{"op": "test", "path": "/status"}],
        [{"op": "move", "path": "/a"}],
        [{"op": "copy", "from": "/a"}],
        [{"op": "add", "path": 1, "value": 1}],
        [{"op": "add", "path": None, "value": 1}],
        [{"op": "add", "path": ["a"], "value": 1}],
        [{"op": "move", "from": {}, "path": "/a"}],
        [{"op": "add", "path": "status", "value": 1}],
        [{"op": "add", "path": "/a~2", "value": 1}],
        [{"op": "add", "path": "/a~", "value": 1}],
        [{"op": "add", "path": "#/a", "value": 1}],
        [{"op": "copy", "from": "a", "path": "/a"}],
    ],
)
def test_a_malformed_patch_is_400(operations: Any) -> None:
    assert _refused(operations).status == 400


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nothing"},
        {"op": "remove", "path": ""},
        {"op": "remove", "path": "/slot/2"},
        {"op": "remove", "path": "/slot/-"},
        {"op": "remove", "path": "/slot/-1"},
        {"op": "remove", "path": "/slot/00"},
        {"op": "remove", "path": "/slot/1e0"},
        {"op": "remove", "path": "/slot/" + "9" * 400},
        {"op": "remove", "path": "/slot/\u0661"},
        {"op": "remove", "path": "/slot/x"},
        {"op": "remove", "path": "/status/0"},
        {"op": "remove", "path": "/priority/x"},
        {"op": "remove", "path": "/comment/x"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "replace", "path": "/slot/2", "value": 1},
        {"op": "replace", "path": "/slot/-", "value": 1},
        {"op": "add", "path": "/nothing/x", "value": 1},
        {"op": "add", "path": "/slot/3", "value": 1},
        {"op": "add", "path": "/slot/x", "value": 1},
        {"op": "add", "path": "/status/x", "value": 1},
        {"op": "add", "path": "/__class__/x", "value": 1},
        {"op": "move", "from": "/nothing", "path": "/a"},
        {"op": "move", "from": "/slot", "path": "/slot/0"},
        {"op": "move", "from": "", "path": "/a"},
        {"op": "copy", "from": "/slot/-", "path": "/a"},
        {"op": "copy", "from": "/nothing", "path": "/a"},
        {"op": "replace", "path": "", "value": []},
        {"op": "replace", "path": "", "value": None},
        {"op": "replace", "path": "", "value": {"resourceType": "Slot"}},
    ],
)
def test_what_does_not_fit_the_document_is_422_that_names_the_operation(operation: dict[str, Any]) -> None:
    error = _refused([{"op": "test", "path": "/status", "value": "booked"}, operation])
    assert error.status == 422
    if operation.get("value") != {"resourceType": "Slot"}:
        assert "operation 2" in str(error)
    assert "Slot/1" not in str(error), "a refusal does not quote the document"


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        ({"op": "replace", "path": "/id", "value": "apt-2"}, "id"),
        ({"op": "remove", "path": "/id"}, "id"),
        ({"op": "replace", "path": "/resourceType", "value": "Slot"}, "resourceType"),
        ({"op": "replace", "path": "/meta/versionId", "value": "4"}, "meta.versionId"),
        ({"op": "remove", "path": "/meta/lastUpdated"}, "meta.lastUpdated"),
        ({"op": "remove", "path": "/meta"}, "meta.versionId"),
        ({"op": "move", "from": "/id", "path": "/comment"}, "id"),
    ],
)
def test_what_is_the_servers_stays(operation: dict[str, Any], named: str) -> None:
    error = _refused([operation])
    assert error.status == 422
    assert f"Appointment.{named}" in [issue.expression for issue in error.issues]


def test_a_patch_may_write_what_is_there_already_and_more_meta() -> None:
    shown = _patched(
        {"op": "replace", "path": "/id", "value": "apt-1"},
        {"op": "add", "path": "/meta/tag", "value": [{"code": "x"}]},
    )
    assert shown["meta"] == {**APPOINTMENT["meta"], "tag": [{"code": "x"}]}


@pytest.mark.parametrize(
    ("status", "operation", "stays"),
    [
        ("generated", {"op": "replace", "path": "/status", "value": "cancelled"}, False),
        ("extensions", {"op": "replace", "path": "/status", "value": "cancelled"}, False),
        ("additional", {"op": "replace", "path": "/status", "value": "cancelled"}, True),
        ("empty", {"op": "replace", "path": "/status", "value": "cancelled"}, True),
        ("generated", {"op": "replace", "path": "/text/div", "value": "<div>cancelled</div>"}, True),
        ("generated", {"op": "test", "path": "/status", "value": "booked"}, True),
        ("generated", {"op": "replace", "path": "/status", "value": "booked"}, True),
    ],
)
def test_a_narrative_that_was_generated_goes_with_what_it_said(
    status: str, operation: dict[str, Any], stays: bool
) -> None:
    before = {**APPOINTMENT, "text": {"status": status, "div": "<div>booked</div>"}}
    assert ("text" in apply_json_patch(before, [operation])) is stays


def test_decimals_keep_their_digits() -> None:
    shown = _patched({"op": "copy", "from": "/extension/0", "path": "/extension/-"})
    assert document.dumps(shown).count(b"1.10") == 2


def test_neither_the_document_nor_the_patch_is_changed() -> None:
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": "/list", "value": []},
        {"op": "add", "path": "/list/-", "value": {"deep": [1]}},
        {"op": "add", "path": "/list/0/deep/-", "value": 2},
        {"op": "copy", "from": "/list", "path": "/again"},
        {"op": "add", "path": "/again/-", "value": 3},
    ]
    before = copy.deepcopy((APPOINTMENT, operations))
    first = apply_json_patch(APPOINTMENT, operations)
    assert (APPOINTMENT, operations) == before
    assert apply_json_patch(APPOINTMENT, operations) == first
    assert (first["list"], first["again"]) == ([{"deep": [1, 2]}], [{"deep": [1, 2]}, 3])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


_LISTS: list[Any] = [[] for _ in range(100_000)]
ATTACKS: dict[str, tuple[dict[str, Any], Any]] = {
    "the document copied into itself": ({"a": "x" * 20}, [{"op": "copy", "from": "", "path": "/a"}] * 99),
    "a doubling list": ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/a/-"}] * 30),
    "the same large copy over and over": ({"a": _LISTS}, [{"op": "copy", "from": "/a", "path": "/b"}] * 99),
    "ten thousand operations": ({}, [{"op": "add", "path": "/a", "value": 1}] * 10_000),
    "a large value": ({}, [{"op": "add", "path": "/a", "value": "x" * MAX_BYTES}]),
    "a deep value": ({}, [{"op": "add", "path": "/a", "value": _nested(2000)}]),
    "depth by depth": (
        {"a": []},
        [{"op": "add", "path": "/a" + "/0" * n, "value": _nested(50)} for n in (1, 40)],
    ),
    "deep copies": ({"a": _nested(60)}, [{"op": "copy", "from": "/a", "path": "/a" + "/0" * 59}] * 9),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_at_once(name: str) -> None:
    doc, operations = ATTACKS[name]
    started = time.monotonic()
    with pytest.raises(FhirError) as caught:
        apply_json_patch(doc, operations)
    assert caught.value.status == 413
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("path", ["/a" * 65, "/" + "a" * 600])
def test_a_long_pointer_is_refused(path: str) -> None:
    assert _refused([{"op": "add", "path": path, "value": 1}]).status == 400


def test_as_many_operations_as_are_allowed_are_done() -> None:
    shown = _patched(
        *[{"op": "add", "path": "/slot/-", "value": {"reference": f"Slot/{n}"}} for n in range(MAX_OPERATIONS)]
    )
    assert len(shown["slot"]) == 2 + MAX_OPERATIONS


_DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | _DECIMALS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_NAMES = ["slot", "0", "1", "2", "-", "reference", "status", "extension", "text", "meta", "id", "a~1b", "", "~"]
_POINTERS = st.lists(st.sampled_from(_NAMES) | st.text(max_size=3), max_size=4).map(
    lambda parts: "".join("/" + part for part in parts)
)
_OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": _POINTERS},
    optional={"from": _POINTERS, "value": _VALUES},
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_OPERATIONS | _VALUES, max_size=6) | _VALUES)
def test_a_random_patch_is_done_or_refused(operations: Any) -> None:
    before = copy.deepcopy(APPOINTMENT)
    try:
        shown = apply_json_patch(APPOINTMENT, operations)
    except FhirError as refused:
        shown = {"id": "apt-1", "status": refused.status}
    assert shown["id"] == "apt-1"
    assert before == APPOINTMENT
