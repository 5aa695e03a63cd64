"""The element tables of R4: that they are current, and what readers of other formats rely on."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from fhir_sched.r4.structure import PRIMITIVE_TYPES, RESOURCE_TYPES, TYPES

ROOT = Path(__file__).parents[2]
SPEC = ROOT.parent / "shared" / "spec"


@pytest.mark.skipif(not SPEC.is_dir(), reason="the published definitions are not beside this clone")
def test_the_tables_are_what_the_published_definitions_say() -> None:
    tool = str(ROOT / "tools" / "r4_types.py")
    with patch.object(sys, "argv", [tool, "--spec", str(SPEC), "--check"]), pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name="__main__")
    assert ended.value.code == 0


def test_every_resource_and_primitive_type_of_r4_is_there() -> None:
    assert len(RESOURCE_TYPES) == 146
    assert len(PRIMITIVE_TYPES) == 20
    assert {"Schedule", "Slot", "Appointment", "Bundle", "Parameters", "Observation"} <= RESOURCE_TYPES
    assert "Resource" not in RESOURCE_TYPES


def test_every_type_that_an_element_names_is_there() -> None:
    named = {
        kind for definition in TYPES.values() for element in definition.elements.values() for kind in element.types
    }
    assert named <= set(TYPES)


def test_elements_come_in_the_order_of_the_specification() -> None:
    elements = TYPES["Slot"].elements
    assert list(elements)[-5:] == ["status", "start", "end", "overbooked", "comment"]
    assert [element.order for element in elements.values()] == list(range(len(elements)))


def test_an_element_tells_its_codes_targets_and_flags() -> None:
    status = TYPES["Slot"].elements["status"]
    assert status.codes == ("busy", "free", "busy-unavailable", "busy-tentative", "entered-in-error")
    assert (status.types, status.min, status.max, status.summary, status.modifier) == (("code",), 1, "1", True, False)
    assert TYPES["Appointment"].elements["status"].modifier
    assert not TYPES["Appointment"].elements["comment"].summary
    assert TYPES["Appointment"].elements["slot"].targets == ("Slot",)
    assert TYPES["Appointment"].elements["slot"].repeats


def test_nested_structures_are_types_of_their_own() -> None:
    assert TYPES["Appointment"].elements["participant"].types == ("Appointment.participant",)
    assert TYPES["Appointment.participant"].elements["status"].min == 1
    assert TYPES["Bundle.entry"].elements["link"].types == ("Bundle.link",)


def test_a_choice_is_one_element_with_a_property_for_each_type() -> None:
    value = TYPES["Extension"].elements["value"]
    assert value.choice
    assert value.json_name("dateTime") == "valueDateTime"
    assert TYPES["Extension"].members["valueQuantity"] == (value, "Quantity")
    assert "value" not in TYPES["Extension"].members


def test_xml_writes_ids_of_elements_and_urls_of_extensions_as_attributes() -> None:
    assert TYPES["Extension"].elements["url"].attribute
    assert TYPES["Period"].elements["id"].attribute
    assert not TYPES["Slot"].elements["id"].attribute
    assert not TYPES["Meta"].elements["profile"].attribute
