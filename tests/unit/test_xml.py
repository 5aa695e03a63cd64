"""XML beside JSON: the same document in both, and what an XML body may not be."""

from __future__ import annotations

import copy
import socket
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_sched import document
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.r4.structure import RESOURCE_TYPES
from fhir_sched.validate import resource_issues
from fhir_sched.xml import from_xml, to_xml

SPEC = Path(__file__).parents[3] / "shared" / "spec"
needs_spec = pytest.mark.skipif(not SPEC.is_dir(), reason="the published examples are not beside this clone")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


def xml(inner: str, kind: str = "Appointment", attributes: str = "") -> bytes:
    return f'<{kind} xmlns="http://hl7.org/fhir"{attributes}>{inner}</{kind}>'.encode()


def read(inner: str, kind: str = "Appointment") -> dict[str, Any]:
    found = from_xml(xml(inner, kind))
    assert found.pop("resourceType") == kind
    return found


def said(body: bytes) -> list[tuple[Kind, str | None, str]]:
    with pytest.raises(FhirError) as caught:
        from_xml(body)
    return [(issue.kind, issue.expression, issue.diagnostics) for issue in caught.value.issues]


# the same document

EVERYTHING: dict[str, Any] = {
    "participant": [{"id": "p", "actor": {"reference": "Patient/1"}, "status": "accepted"}],
    "resourceType": "Appointment",
    "_start": {"extension": [{"url": "http://e/absent", "valueCode": "unknown"}]},
    "minutesDuration": 15,
    "id": "a",
    "status": "booked",
    "_status": {"id": "s"},
    "text": {"status": "generated", "div": f"<div {XHTML}>a &amp; b<td></td></div>"},
    "contained": [
        {"resourceType": "Location", "id": "l", "position": {"longitude": Decimal("-83.690"), "latitude": 42}}
    ],
    "extension": [{"url": "http://e/flag", "valueBoolean": False}],
    "description": '"a" < b\n& c',
}
EVERYTHING_IN_XML = (
    f'{HEAD}<Appointment xmlns="http://hl7.org/fhir"><id value="a"/>'
    f'<text><status value="generated"/><div {XHTML}>a &amp; b<td></td></div></text>'
    '<contained><Location><id value="l"/><position><longitude value="-83.690"/><latitude value="42"/></position>'
    '</Location></contained><extension url="http://e/flag"><valueBoolean value="false"/></extension>'
    '<status value="booked" id="s"/><description value="&quot;a&quot; &lt; b&#10;&amp; c"/>'
    '<start><extension url="http://e/absent"><valueCode value="unknown"/></extension></start>'
    '<minutesDuration value="15"/><participant id="p"><actor><reference value="Patient/1"/></actor>'
    '<status value="accepted"/></participant></Appointment>'
)


def test_a_resource_is_written_in_the_order_of_the_schema() -> None:
    assert to_xml(EVERYTHING).decode() == EVERYTHING_IN_XML
    assert from_xml(EVERYTHING_IN_XML.encode()) == EVERYTHING


def test_indented_xml_is_the_same_resource() -> None:
    pretty = to_xml(EVERYTHING, pretty=True)
    assert b'\n  <participant id="p">\n    <actor>\n      <reference value="Patient/1"/>' in pretty
    assert from_xml(pretty) == EVERYTHING


def _examples() -> list[Path]:
    found = sorted(SPEC.rglob("*.json")) if SPEC.is_dir() else []
    return [path for path in found if "json-schema" not in path.parts]


@needs_spec
def test_every_published_example_comes_back_from_xml_as_it_was() -> None:
    proven = set()
    for path in _examples():
        try:
            resource = document.parse(path.read_bytes())
        except FhirError:
            continue  # not one resource
        if resource.get("resourceType") not in RESOURCE_TYPES:
            continue
        for pretty in (False, True):
            written = to_xml(resource, pretty=pretty)
            assert ET.fromstring(written).tag.endswith(resource["resourceType"]), path  # well-formed for others too
            assert from_xml(written) == resource, path
        assert document.parse(document.dumps(from_xml(to_xml(resource)))) == resource, path
        proven.add(resource["resourceType"])
    assert {
        "Appointment",
        "Slot",
        "Schedule",
        "Bundle",
        "Parameters",
        "OperationOutcome",
        "CapabilityStatement",
    } <= proven


def _without_tabs(value: Any) -> Any:
    """An attribute's tab is a space to every XML parser; the JSON conversions kept it."""
    if isinstance(value, dict):
        return {name: _without_tabs(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_tabs(item) for item in value]
    return value.replace("\t", " ") if isinstance(value, str) else value


@needs_spec
def test_published_xml_equals_its_published_json() -> None:
    folder = SPEC / "ihe-iti-scheduling"
    in_json = [document.parse(path.read_bytes()) for path in (folder / "json").glob("*.json")]
    by_url = {resource["url"]: resource for resource in in_json}
    paths = list((folder / "xml").glob("*.xml"))
    assert paths
    for path in paths:
        resource = from_xml(path.read_bytes())
        assert resource == _without_tabs(by_url[resource["url"]]), path


# values


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ('<minutesDuration value="15"/>', {"minutesDuration": 15}),
        ('<minutesDuration value="+15"/>', {"minutesDuration": 15}),
        ('<priority value="0"/>', {"priority": 0}),
        ('<comment value="a&#10;b"/>', {"comment": "a\nb"}),
        ('<comment value="a\nb"/>', {"comment": "a b"}),
        ("<comment value='&#x1F600;'/>", {"comment": "\N{GRINNING FACE}"}),
        ('<comment value=""/>', {"comment": ""}),
        ('<!-- said --><comment value="a"><!-- said --></comment>', {"comment": "a"}),
        ('<f:comment xmlns:f="http://hl7.org/fhir" value="a"/>', {"comment": "a"}),
        ('<start value="2026-06-02T09:00:00.120+02:00"/>', {"start": "2026-06-02T09:00:00.120+02:00"}),
        ('<status value="booked"/><comment value="a"/>', {"comment": "a", "status": "booked"}),
        ("<slot/>", {"slot": [{}]}),
    ],
)  # fmt: skip
def test_values_are_read_as_json_has_them(inner: str, expected: dict[str, Any]) -> None:
    found = read(inner)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize("text", ["0", "-1", "1.10", "0.0000001", "1e3", "-1.5E-7", "1234567890123456789012345678901"])
def test_a_decimal_keeps_its_digits(text: str) -> None:
    found = read(f'<position><longitude value="{text}"/></position>', "Location")["position"]["longitude"]
    assert found == document.parse(f'{{"n":{text.replace("E", "e")}}}'.encode())["n"]
    assert str(found) == str(Decimal(text))


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ('<given value="A"/><given value="B" id="b"/>', {"given": ["A", "B"], "_given": [None, {"id": "b"}]}),
        ('<given value="A" id="a"/><given value="B"/>', {"given": ["A", "B"], "_given": [{"id": "a"}, None]}),
        ('<given id="a"><extension url="u"/></given><given value="B"/>',
         {"given": [None, "B"], "_given": [{"id": "a", "extension": [{"url": "u"}]}, None]}),
        ('<given id="a"><extension url="u"/></given>', {"_given": [{"id": "a", "extension": [{"url": "u"}]}]}),
        ('<given value="A"/><given value="B"/>', {"given": ["A", "B"]}),
    ],
)  # fmt: skip
def test_repeating_primitives_have_siblings_of_the_same_length(inner: str, expected: dict[str, Any]) -> None:
    found = read(f"<name>{inner}</name>", "Patient")
    assert found == {"name": [expected]}
    assert from_xml(to_xml({"resourceType": "Patient", **found}))["name"] == [expected]


def test_null_places_of_an_array_without_values_come_back_without_the_array() -> None:
    name = {"given": [None], "_given": [{"extension": [{"url": "u", "valueCode": "c"}]}]}
    again = from_xml(to_xml({"resourceType": "Patient", "name": [name]}))
    assert again["name"] == [{"_given": name["_given"]}]


@pytest.mark.parametrize(
    "div",
    [
        f"<div {XHTML}>text</div>",
        f"<div {XHTML}>&quot;a&quot; &#160; &lt;b&gt;</div>",
        f"<div {XHTML}><td></td><br/><br /><img alt='>' src=\"a.png\"/></div>",
        f"<div {XHTML}>a<!-- kept --><![CDATA[<b>]]></div >",
        f"<div\n  {XHTML}\r\n lang='de'>ä\r\n\N{GRINNING FACE}</div>",
        f"<div {XHTML}><div><div>inner</div></div></div>",
        '<h:div xmlns:h="http://www.w3.org/1999/xhtml"><h:p>text</h:p></h:div>',
    ],
)
@pytest.mark.parametrize("before", [0, 1_500_000])
def test_a_narrative_comes_back_byte_for_byte(div: str, before: int) -> None:
    resource = {
        "resourceType": "Slot",
        "text": {"status": "generated", "div": div},
        "comment": "ü" * before,
    }
    body = to_xml(resource)
    assert div.encode() in body
    assert from_xml(body) == resource
    padded = body.replace(b"<text>", b"<!--" + b"x" * before + b"--><text>")
    assert from_xml(padded) == resource


@pytest.mark.parametrize(
    ("body", "div"),
    [
        ('<f:Slot xmlns:f="http://hl7.org/fhir" xmlns="http://www.w3.org/1999/xhtml"><f:text><div>a</div></f:text></f:Slot>',
         f"<div {XHTML}>a</div>"),
        ('<Slot xmlns="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"><text><h:div>a<h:br/></h:div></text></Slot>',
         '<h:div xmlns:h="http://www.w3.org/1999/xhtml">a<h:br/></h:div>'),
        (f'<Slot xmlns="http://hl7.org/fhir" xmlns:x="http://x"><text><div {XHTML}>a</div></text></Slot>',
         f"<div {XHTML}>a</div>"),
        (f'<Slot xmlns="http://hl7.org/fhir"><text><div {XHTML} title=">"/></text></Slot>',
         f'<div {XHTML} title=">"/>'),
    ],
)  # fmt: skip
def test_a_narrative_takes_along_the_namespaces_that_it_inherits(body: str, div: str) -> None:
    found = from_xml(body.encode())["text"]["div"]
    assert found == div
    assert ET.fromstring(found).tag == "{http://www.w3.org/1999/xhtml}div"


def test_a_narrative_that_is_not_well_formed_cannot_spoil_the_document() -> None:
    resource = {"resourceType": "Slot", "text": {"status": "generated", "div": "<div></text><id value='x'/>"}}
    assert ET.fromstring(to_xml(resource))[0][1].text == "<div></text><id value='x'/>"
    for hostile in ('<!DOCTYPE div [<!ENTITY a "b">]><div>&a;</div>', '<?xml version="1.0"?><div/>', ""):
        ET.fromstring(to_xml({"resourceType": "Slot", "text": {"div": hostile}}))


def test_what_xml_cannot_say_is_replaced_rather_than_written() -> None:
    written = to_xml({"resourceType": "Slot", "comment": "a\x00\x1b\ud800\uffff<"})
    assert ET.fromstring(written)[0].get("value") == "a\ufffd\ufffd\ufffd\ufffd<"


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Slot", "colour": "red"},
        {"resourceType": "Sloth"},
        {"resourceType": "Slot", "schedule": "x"},
        {"resourceType": "Slot", "comment": None},
        {},
    ],
)
def test_what_is_not_r4_has_no_xml(resource: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not valid R4"):
        to_xml(resource)


# what is refused

STRUCTURE, VALUE = Kind.STRUCTURE, Kind.VALUE


def of_value(element: str) -> str:
    return f'<extension url="u">{element}</extension>'


@pytest.mark.parametrize(
    ("inner", "kind", "place", "sentence"),
    [
        ('<colour value="red"/>', STRUCTURE, ".colour", "Appointment has no element 'colour' in R4."),
        ('<Status value="booked"/>', STRUCTURE, ".Status", "Is status meant?"),
        ('<resourceType value="Slot"/>', STRUCTURE, ".resourceType", "no element"),
        ("<participant><foo/></participant>", STRUCTURE, ".participant[0].foo", "no element 'foo'"),
        ("<participant/><participant><period><x/></period></participant>", STRUCTURE,
         ".participant[1].period.x", "no element"),
        (of_value('<valueFoo value="1"/>'), STRUCTURE, ".extension[0].valueFoo", ""),
        ('<extension><url value="u"/></extension>', STRUCTURE, ".extension[0].url", "attribute"),
        (of_value('<valueString value="a" x="1"/>'), STRUCTURE, ".extension[0].value", "'x'"),
        ('<status value="booked" colour="red"/>', STRUCTURE, ".status", "no attribute 'colour'"),
        ('<participant ref="1"/>', STRUCTURE, ".participant[0]", "no attribute 'ref'"),
        ('<status xml:lang="en" value="booked"/>', STRUCTURE, ".status", "no attribute"),
        ('<status value="booked">booked</status>', STRUCTURE, ".status", "Text may stand in a narrative only"),
        ("<participant><![CDATA[x]]></participant>", STRUCTURE, ".participant[0]", "Text"),
        ("stray", STRUCTURE, "", "Text"),
        ("<status/>", STRUCTURE, ".status", "ele-1"),
        ('<status value="booked"/><status value="noshow"/>', STRUCTURE, ".status", "only once"),
        ('<start id="a"/><start value="2026"/>', STRUCTURE, ".start", "only once"),
        ('<start value="2026"/><status value="booked"/>', STRUCTURE, ".status", "to stand in front of start"),
        ("<participant><status value='accepted'/><actor id='a'/></participant>", STRUCTURE,
         ".participant[0].actor", "in front of status"),
        ("<slot id='a'/><comment value='c'/><slot id='b'/>", STRUCTURE, ".slot[1]", "in front of comment"),
        (f"<text><div {XHTML}>a</div><status value='generated'/></text>", STRUCTURE, ".text.status", "in front of div"),
        ('<status value="booked"/><id value="a"/>', STRUCTURE, ".id", "in front of status"),
        ('<minutesDuration value="x"/>', VALUE, ".minutesDuration", "whole number"),
        ('<minutesDuration value="007"/>', VALUE, ".minutesDuration", "whole number"),
        ('<minutesDuration value="1.0"/>', VALUE, ".minutesDuration", "whole number"),
        ('<minutesDuration value="\u0661"/>', VALUE, ".minutesDuration", "whole number"),
        (of_value('<valueBoolean value="TRUE"/>'), VALUE, ".extension[0].value", "boolean"),
        (of_value('<valueDecimal value="1."/>'), VALUE, ".extension[0].value", "decimal"),
        (of_value('<valueDecimal value="NaN"/>'), VALUE, ".extension[0].value", "decimal"),
        (of_value('<valueDecimal value="1e999"/>'), STRUCTURE, ".extension[0].value", "64"),
        ("<contained/>", STRUCTURE, ".contained[0]", "resource is needed"),
        ('<contained id="x"><Slot/></contained>', STRUCTURE, ".contained[0]", "no attribute"),
        ("<contained><Slot/></contained><contained><Foo/></contained>", STRUCTURE, ".contained[1]", "'Foo'"),
        ("<contained><Slot/><Slot/></contained>", STRUCTURE, ".contained[0]", "Only one resource"),
        ("<contained><Slot><x/></Slot></contained>", STRUCTURE, ".contained[0].x", "Slot has no element"),
        ("<contained><Resource/></contained>", STRUCTURE, ".contained[0]", "not a resource type"),
        ("<text><div>a</div></text>", STRUCTURE, ".text.div", "http://www.w3.org/1999/xhtml"),
        (f"<text><p {XHTML}>a</p></text>", STRUCTURE, ".text", "R4's elements are in"),
        (f"<text><div {XHTML}>a</div><div {XHTML}>b</div></text>", STRUCTURE, ".text.div", "only once"),
        ('<status xmlns="http://hl7.org/fhir2" value="booked"/>', STRUCTURE, ".status", "namespace"),
        ('<status xmlns="" value="booked"/>', STRUCTURE, ".status", "namespace"),
    ],
)  # fmt: skip
def test_what_r4_does_not_know_is_refused_with_its_place(inner: str, kind: Kind, place: str, sentence: str) -> None:
    (found,) = said(xml(inner))
    assert found[:2] == (kind, f"Appointment{place}")
    assert sentence in found[2]


def test_everything_unknown_is_said_at_once_and_no_more_than_fifty_times() -> None:
    places = [place for _, place, _ in said(xml('<a/><b><c/></b><status value="booked" d="1"/>'))]
    assert places == ["Appointment.a", "Appointment.b", "Appointment.status"]
    assert len(said(xml("<a/>" * 60))) == 50


@pytest.mark.parametrize("name", ["colour", "statuss", "Status", "start-time"])
def test_an_unknown_element_is_refused_as_in_json(name: str) -> None:
    in_json = resource_issues({"resourceType": "Appointment", name: "x"}, "Appointment")
    assert said(xml(f'<{name} value="x"/>'))[0] in [
        (issue.kind, issue.expression, issue.diagnostics) for issue in in_json
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"{}", "not well-formed"),
        (b"<", "not well-formed"),
        (xml("") + xml(""), "not well-formed"),
        (xml("") + b"x", "not well-formed"),
        (xml("<status>"), "not well-formed"),
        (xml('<status value="a" value="b"/>'), "not well-formed"),
        (xml('<comment value="&nbsp;"/>'), "not well-formed"),
        (xml('<comment value="&#0;"/>'), "not well-formed"),
        (xml('<comment value="&#xD800;"/>'), "not well-formed"),
        (xml('<comment value="\x01"/>'), "not well-formed"),
        (xml('<comment value="<"/>'), "not well-formed"),
        (xml("<x:status/>"), "not well-formed"),
        (xml('<comment value="\xe4"/>').decode().encode("latin-1"), "not UTF-8"),
        (xml("").decode().encode("utf-16"), "not UTF-8"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + xml(""), "UTF-8"),
        (b'<?xml version="1.1"?>' + xml(""), "1.0"),
        (b'<?xml-stylesheet href="x.xsl"?>' + xml(""), "processing instruction"),
        (xml("<?php echo 1 ?>"), "processing instruction"),
        (b"<Appointment/>", "not a resource type of R4"),
        (b'<Appointment xmlns="http://hl7.org/fhir/"/>', "not a resource type of R4"),
        (b'<Foo xmlns="http://hl7.org/fhir"/>', "not a resource type of R4"),
        (b'<Extension xmlns="http://hl7.org/fhir"/>', "not a resource type of R4"),
        (b"<html xmlns='http://www.w3.org/1999/xhtml'><body/></html>", "not a resource type of R4"),
    ],
)
def test_what_is_no_fhir_xml_is_refused(body: bytes, sentence: str) -> None:
    (found,) = said(body)
    assert found[0] is Kind.STRUCTURE
    assert sentence in found[2]


def test_an_xml_declaration_a_byte_order_mark_and_a_schema_location_are_passed_over() -> None:
    location = (
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir fhir.xsd"'
    )
    body = b"\xef\xbb\xbf" + HEAD.encode() + b"\n<!-- c -->\n" + xml('<status value="booked"/>', attributes=location)
    assert from_xml(body) == {"resourceType": "Appointment", "status": "booked"}


LAUGHS = '<!ENTITY a "lol">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
BLOWN_UP = f'<!ENTITY k "{"x" * 100_000}">'


@pytest.mark.parametrize(
    "declared",
    [
        "<!DOCTYPE Appointment>",
        '<!DOCTYPE Appointment SYSTEM "{file}">',
        '<!DOCTYPE Appointment PUBLIC "-//X//X" "{url}">',
        '<!DOCTYPE Appointment [<!ENTITY k SYSTEM "{file}">]>',
        '<!DOCTYPE Appointment [<!ENTITY k SYSTEM "{url}">]>',
        '<!DOCTYPE Appointment [<!ENTITY % p SYSTEM "{url}"> %p;]>',
        "<!DOCTYPE Appointment [<!ENTITY % p \"<!ENTITY k 'x'>\"> %p;]>",
        '<!DOCTYPE Appointment [<!ATTLIST status value CDATA "booked">]>',
        "<!DOCTYPE Appointment [" + LAUGHS + "]>",
        "<!DOCTYPE Appointment [" + BLOWN_UP + "]>",
        "<!-- <!DOCTYPE a> --><!DOCTYPE Appointment [" + LAUGHS + "]>",
    ],
)
def test_a_document_type_is_refused_unread(declared: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x.dtd"
        head = declared.replace("{file}", secret.as_uri()).replace("{url}", url).encode()
        for inner in ('<comment value="&k;"/>', "&k;" * 10_000, '<status value="booked"/>'):
            ((kind, _, sentence),) = said(head + xml(inner))
            assert kind is Kind.STRUCTURE
            assert "document type" in sentence
            assert "secret" not in sentence
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_document_type_inside_a_comment_or_a_text_is_none() -> None:
    assert read('<!-- <!DOCTYPE x [<!ENTITY a "b">]> --><comment value="&lt;!DOCTYPE x>"/>') == {
        "comment": "<!DOCTYPE x>"
    }


@pytest.mark.parametrize(("levels", "fits"), [(30, True), (31, True), (32, False), (40, False), (100_000, False)])
def test_nesting_is_bounded_as_in_json(levels: int, fits: bool) -> None:
    body = xml('<extension url="u">' * levels + "</extension>" * levels)
    if fits:
        written = document.dumps(from_xml(body))
        assert document.parse(written) == from_xml(body)
    else:
        assert "levels deep" in said(body)[0][2]


@pytest.mark.parametrize(
    "inner", ["<a>" * 100_000 + "</a>" * 100_000, f"<text><div {XHTML}>" + "<p>" * 65 + "</p>" * 65]
)
def test_what_is_not_fhir_is_no_deeper_either(inner: str) -> None:
    assert "levels deep" in said(xml(inner))[-1][2]


# anything at all


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    _read_or_refuse(body)


TOKENS = [
    *"<>/&;\"'= \n\x00ä",
    *("xmlns", "http://hl7.org/fhir", "status", " value='1'", "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>", "&#1;"),
    *("<!DOCTYPE a [", "]>", "<!ENTITY a 'b'>", "<div", "</div>", "<extension url='u'>", "</extension>"),
    *("<contained>", "</contained>", "<Slot>", "</Slot>", "<valueDecimal value='1e5'/>"),
]


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(EVERYTHING_IN_XML)), st.integers(0, 30), st.sampled_from(TOKENS)), max_size=4)
)
def test_a_damaged_document_is_read_or_refused(damages: list[tuple[int, int, str]]) -> None:
    text = EVERYTHING_IN_XML
    for at, length, token in damages:
        text = text[:at] + token + text[at + length :]
    _read_or_refuse(text.encode())


def _read_or_refuse(body: bytes) -> None:
    """What is read validates or gets issues, and has an XML form again when it is sound."""
    try:
        found = from_xml(body)
    except FhirError:
        return
    if not resource_issues(found, found["resourceType"]):
        assert from_xml(to_xml(found)) == found


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff", include_characters="\t\n\r"),
    min_size=1,
)
VALUES = st.one_of(
    st.fixed_dictionaries({"valueString": TEXT}),
    st.fixed_dictionaries({"valueBoolean": st.booleans()}),
    st.fixed_dictionaries({"valueInteger": st.integers(-(2**31), 2**31 - 1)}),
    st.fixed_dictionaries({"valueDecimal": st.decimals(allow_nan=False, allow_infinity=False, places=5)}),
    st.fixed_dictionaries({"_valueString": st.fixed_dictionaries({"id": TEXT, "extension": st.just([{"url": "u"}])})}),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"url": TEXT}).flatmap(lambda e: VALUES.map(lambda v: {**e, **v})), min_size=1),
    st.booleans(),
)
def test_any_text_and_number_comes_back(extensions: list[dict[str, Any]], pretty: bool) -> None:
    resource = {"resourceType": "Slot", "extension": extensions}
    assert from_xml(to_xml(copy.deepcopy(resource), pretty=pretty)) == resource
