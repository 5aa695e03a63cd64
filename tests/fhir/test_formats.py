"""Formats (R4 3.1.0.1.9): XML for everything that JSON does, chosen by Accept, Content-Type and _format."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import httpx
import pytest

from clinic import PATIENT, Clinic, Resource, as_resource, name, refusal
from fhir_sched import document
from fhir_sched.xml import from_xml

FHIR_XML = "application/fhir+xml"
XML = {"Accept": FHIR_XML, "Content-Type": FHIR_XML}
NAMESPACE = {"f": "http://hl7.org/fhir"}


@pytest.fixture
def slot(clinic: Clinic) -> Resource:
    """A free slot."""
    return clinic.slot(clinic.schedule(), "2026-06-02T09:00:00Z")


def booking(slot: Resource, comment: str = "in XML") -> str:
    """An Appointment as a client writes it in XML."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Appointment xmlns="http://hl7.org/fhir">\n'
        '  <extension url="http://example.org/exact"><valueDecimal value="1.10"/></extension>\n'
        '  <status value="booked"/>\n'
        f'  <start value="{slot["start"]}"/>\n  <end value="{slot["end"]}"/>\n'
        f'  <slot><reference value="{name(slot)}"/></slot>\n  <comment value="{comment}"/>\n'
        f'  <participant><actor><reference value="{PATIENT}"/></actor><status value="accepted"/></participant>\n'
        "</Appointment>\n"
    )


def as_xml(answer: httpx.Response, kind: str) -> ET.Element:
    """The root of an answer in XML, which has to be of that type."""
    assert answer.headers["content-type"] == f"{FHIR_XML}; charset=utf-8"
    root = ET.fromstring(answer.content)
    assert root.tag == f"{{http://hl7.org/fhir}}{kind}", answer.text
    return root


def value(root: ET.Element, path: str) -> str:
    """The value of the first element at a path such as `entry/resource`."""
    found = root.find("/".join(f"f:{step}" for step in path.split("/")), NAMESPACE)
    assert found is not None, path
    return found.attrib["value"]


# every interaction


def test_a_resource_is_created_read_updated_searched_and_deleted_in_xml(clinic: Clinic, slot: Resource) -> None:
    created = clinic.http.post("Appointment", content=booking(slot), headers=XML)
    assert created.status_code == 201, created.text
    root = as_xml(created, "Appointment")
    fhir_id = value(root, "id")
    assert created.headers["location"].endswith(f"Appointment/{fhir_id}/_history/1")
    assert value(root, "extension/valueDecimal") == "1.10"

    read = clinic.http.get(f"Appointment/{fhir_id}", headers=XML)
    assert ET.canonicalize(read.text) == ET.canonicalize(created.text)

    changed = read.text.replace("in XML", "changed")
    updated = clinic.http.put(f"Appointment/{fhir_id}", content=changed, headers={**XML, "If-Match": 'W/"1"'})
    assert updated.status_code == 200, updated.text
    assert value(as_xml(updated, "Appointment"), "comment") == "changed"
    assert updated.headers["etag"] == 'W/"2"'

    found = as_xml(clinic.http.get(f"Appointment?slot={name(slot)}", headers=XML), "Bundle")
    assert value(found, "entry/resource/Appointment/id") == fhir_id
    posted = clinic.http.post(
        "Appointment/_search",
        content=f"slot={name(slot)}",
        headers={"Accept": FHIR_XML, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert value(as_xml(posted, "Bundle"), "entry/resource/Appointment/comment") == "changed"

    history = as_xml(clinic.http.get(f"Appointment/{fhir_id}/_history", headers=XML), "Bundle")
    assert value(history, "type") == "history"
    assert value(
        as_xml(clinic.http.get(f"Appointment/{fhir_id}/_history/1", headers=XML), "Appointment"), "comment"
    ) == ("in XML")
    deleted = clinic.http.delete(f"Appointment/{fhir_id}", headers=XML)
    assert (deleted.status_code, deleted.content) == (204, b"")
    gone = clinic.http.get(f"Appointment/{fhir_id}", headers=XML)
    assert gone.status_code == 410
    assert value(as_xml(gone, "OperationOutcome"), "issue/code") == "deleted"


def test_what_is_written_in_one_format_is_read_in_the_other(clinic: Clinic, slot: Resource) -> None:
    answer = clinic.http.post(
        "Appointment", content=booking(slot, "a &lt; b&#10;&amp; c"), headers={"Content-Type": FHIR_XML}
    )
    assert answer.status_code == 201
    made = as_resource(answer)
    assert made["comment"] == "a < b\n& c"
    assert b'"valueDecimal":1.10' in answer.content
    in_xml = clinic.http.get(name(made), headers={"Accept": FHIR_XML})
    assert from_xml(in_xml.content) == document.parse(clinic.http.get(name(made)).content)
    back = clinic.http.put(name(made), json=made, headers={"Accept": FHIR_XML})
    assert from_xml(back.content)["comment"] == made["comment"]


def test_a_narrative_comes_back_as_it_was_written(clinic: Clinic) -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml">&quot;Room&quot;&#160;<b>1</b><br /></div>'
    made = clinic.schedule(text={"status": "additional", "div": div})
    assert div in clinic.http.get(name(made), headers=XML).text
    assert made["text"]["div"] == div


def test_a_batch_and_a_transaction_go_in_xml(clinic: Clinic, slot: Resource) -> None:
    for kind in ("batch", "transaction"):
        body = (
            f'<Bundle xmlns="http://hl7.org/fhir"><type value="{kind}"/><entry><resource><Schedule>'
            '<actor><reference value="Practitioner/9"/></actor></Schedule></resource><request><method value="POST"/>'
            f'<url value="Schedule"/></request></entry><entry><request><method value="GET"/><url value="{name(slot)}"/>'
            "</request></entry></Bundle>"
        )
        answer = clinic.http.post("", content=body, headers=XML)
        assert answer.status_code == 200, answer.text
        root = as_xml(answer, "Bundle")
        assert value(root, "type") == f"{kind}-response"
        assert value(root, "entry/response/status").startswith("201")
        assert value(root, "entry/resource/Slot/status") == "free"


def test_the_capability_statement_and_every_refusal_are_xml_too(clinic: Clinic) -> None:
    statement = clinic.http.get("metadata", headers=XML)
    root = as_xml(statement, "CapabilityStatement")
    formats = {found.attrib["value"] for found in root.findall("f:format", NAMESPACE)}
    assert {"application/fhir+json", "application/fhir+xml", "json", "xml"} <= formats
    assert from_xml(statement.content) == as_resource(clinic.http.get("metadata"))
    for method, url, status in [
        ("GET", "Schedule/sch-0", 404),
        ("GET", "Patient", 404),
        ("GET", "nothing/at/%01/all", 404),
        ("GET", "Slot?status:nonsense=free", 400),
        ("PATCH", "metadata", 405),
        ("GET", f"{clinic.server.url}/fhir/no-tenant/Slot", 404),
        ("GET", "Slot?a=" + "x" * 17_000, 414),
        ("GET", "Slot?a=%ff", 400),
    ]:
        answer = clinic.http.request(method, url, headers={"Accept": FHIR_XML})
        assert answer.status_code == status, answer.text
        assert value(as_xml(answer, "OperationOutcome"), "issue/diagnostics")


@pytest.mark.parametrize("preference", ["minimal", "representation", "OperationOutcome"])
def test_prefer_holds_in_xml_as_in_json(clinic: Clinic, slot: Resource, preference: str) -> None:
    answer = clinic.http.post("Appointment", content=booking(slot), headers={**XML, "Prefer": f"return={preference}"})
    assert answer.status_code == 201
    if preference == "minimal":
        assert answer.content == b""
    else:
        as_xml(answer, "Appointment" if preference == "representation" else "OperationOutcome")


def test_head_and_etag_are_those_of_the_read(clinic: Clinic) -> None:
    made = clinic.schedule()
    read, head = clinic.http.get(name(made), headers=XML), clinic.http.head(name(made), headers=XML)
    assert (head.status_code, head.content) == (200, b"")
    for header in ("etag", "last-modified", "content-type", "content-length"):
        assert head.headers[header] == read.headers[header]
    assert read.headers["etag"] == clinic.http.get(name(made)).headers["etag"]
    assert "Accept" in read.headers["vary"]


def test_pretty_is_indented_and_the_same_resource(clinic: Clinic) -> None:
    made = clinic.schedule(extension=[{"url": "http://example.org/exact", "valueString": "a"}])
    in_json = clinic.http.get(f"{name(made)}?_pretty=true")
    assert b'\n  "resourceType": "Schedule"' in in_json.content
    assert as_resource(in_json) == made
    in_xml = clinic.http.get(f"{name(made)}?_pretty=true&_format=xml")
    assert b"\n  <id value=" in in_xml.content
    assert from_xml(in_xml.content) == made
    assert b"\n" not in clinic.http.get(f"{name(made)}?_pretty=false").content


# negotiation


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/fhir+xml", "application/fhir+xml"),
        ("application/xml", "application/xml"),
        ("text/xml", "text/xml"),
        ("APPLICATION/FHIR+XML", "application/fhir+xml"),
        ("application/fhir+xml; fhirVersion=4.0", "application/fhir+xml"),
        ('application/fhir+xml; fhirVersion="4.0"; charset=utf-8', "application/fhir+xml"),
        ("application/fhir+xml;q=0.5, application/fhir+json;q=0.9", "application/fhir+json"),
        ("application/fhir+xml;q=0.9, application/fhir+json;q=0.5", "application/fhir+xml"),
        ("application/fhir+xml, application/fhir+json", "application/fhir+xml"),
        ("application/fhir+json, application/fhir+xml", "application/fhir+json"),
        ("application/fhir+xml, */*;q=0.1", "application/fhir+xml"),
        ("*/*, application/fhir+xml", "application/fhir+xml"),
        ("application/fhir+json;q=0, */*", "application/fhir+xml"),
        ("application/*", "application/fhir+json"),
        ("text/*", "text/json"),
        ("application/fhir+xml;q=0.2, application/*;q=0.8", "application/fhir+json"),
        ("application/fhir+xml;fhirVersion=3.0, application/fhir+json;q=0.1", "application/fhir+json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/xml"),
        ("text/turtle;q=1, application/xml;q=0.001", "application/xml"),
        ("", "application/fhir+json"),
    ],
)
def test_the_best_of_what_accept_names_is_chosen(shared: Clinic, accept: str, chosen: str) -> None:
    answer = shared.http.get("Slot", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{chosen}; charset=utf-8"
    assert answer.content.startswith(b"<" if "xml" in chosen else b"{")


@pytest.mark.parametrize(
    "accept",
    [
        "text/turtle",
        "application/fhir+turtle",
        "application/fhir+xml;q=0",
        "application/fhir+xml;q=nonsense",
        "application/fhir+xml; fhirVersion=5.0",
        "application/fhir+xml; fhirVersion=1.0, application/fhir+json; fhirVersion=3.0",
        "*/*;q=0",
        "xml",
        "application/fhir xml",
    ],
)
def test_what_is_not_served_is_406_in_json(shared: Clinic, accept: str) -> None:
    (issue,) = refusal(shared.http.get("Slot", headers={"Accept": accept}), 406)
    assert "application/fhir+xml" in issue["diagnostics"]


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        ("xml", "xml"),
        ("text/xml", "xml"),
        ("application/xml", "xml"),
        ("application/fhir%2Bxml", "xml"),
        ("application/fhir+xml", "xml"),
        ("application%2Ffhir%2Bxml%3B%20fhirVersion%3D4.0", "xml"),
        ("json", "json"),
        ("application/fhir+json", "json"),
        ("text/json", "json"),
    ],
)
def test_format_overrides_accept_in_both_directions(shared: Clinic, word: str, chosen: str) -> None:
    for accept in ("application/fhir+xml", "application/fhir+json", "text/turtle"):
        answer = shared.http.get(f"Slot?_format={word}", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"application/fhir+{chosen}; charset=utf-8"
    bundle = as_resource(answer) if chosen == "json" else from_xml(answer.content)
    assert bundle["resourceType"] == "Bundle"


@pytest.mark.parametrize("word", ["ttl", "html", "text/html", "application/fhir+xml;fhirVersion=3.0", "x" * 500])
def test_an_unknown_format_is_406(shared: Clinic, word: str) -> None:
    refusal(shared.http.get(f"Slot?_format={word}", headers={"Accept": FHIR_XML}), 406)


def test_format_says_nothing_about_the_body(clinic: Clinic, slot: Resource) -> None:
    answer = clinic.http.post("Appointment?_format=json", content=booking(slot), headers=XML)
    assert answer.status_code == 201
    assert as_resource(answer)["status"] == "booked"
    refusal(
        clinic.http.post(
            "Appointment?_format=json", content=booking(slot), headers={"Content-Type": "application/fhir+json"}
        ),
        400,
    )


def test_a_posted_search_may_name_the_format_in_its_form(shared: Clinic) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = shared.http.post("Slot/_search", content="status=free&_format=xml&_pretty=true", headers=form)
    assert answer.status_code == 200
    assert b"\n  <type" in answer.content
    as_xml(answer, "Bundle")
    refusal(shared.http.post("Slot/_search", content="_format=ttl", headers=form), 406)


# bodies


@pytest.mark.parametrize(
    "content_type",
    ["application/fhir+xml", "application/xml", "text/xml; charset=UTF-8", "application/fhir+xml; fhirVersion=4.0"],
)
def test_a_body_in_xml_is_taken_by_each_of_its_media_types(clinic: Clinic, slot: Resource, content_type: str) -> None:
    answer = clinic.http.post("Appointment", content=booking(slot), headers={"Content-Type": content_type})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/turtle",
        "application/fhir+xml; fhirVersion=3.0",
        "application/fhir+xml; charset=utf-16",
        "application/x-www-form-urlencoded",
        "application/xhtml+xml",
        "xml",
    ],
)
def test_a_body_of_another_media_type_is_415(clinic: Clinic, slot: Resource, content_type: str) -> None:
    answer = clinic.http.post("Appointment", content=booking(slot), headers={"Content-Type": content_type})
    assert refusal(answer, 415)[0]["code"] == "not-supported"
    assert clinic.read(slot)["status"] == "free"


@pytest.mark.parametrize("content_type", ["application/fhir+json", "application/fhir+xml"])
@pytest.mark.parametrize("body", [b"", b"\x00", b"{", b"<", b"{}", b"<a/>", b"\xff\xfe", b"null"])
def test_a_body_that_is_not_what_it_says_is_400(clinic: Clinic, content_type: str, body: bytes) -> None:
    refusal(clinic.http.post("Appointment", content=body, headers={"Content-Type": content_type}), 400)


def test_what_is_wrong_in_xml_is_said_with_its_place(clinic: Clinic, slot: Resource) -> None:
    unknown = booking(slot).replace("<status", '<colour value="red"/><status', 1)
    answer = clinic.http.post("Appointment", content=unknown, headers=XML)
    assert answer.status_code == 400
    root = as_xml(answer, "OperationOutcome")
    assert value(root, "issue/expression") == "Appointment.colour"
    missing = booking(slot).replace('<status value="booked"/>', '<status value="boked"/>')
    issue = refusal(clinic.http.post("Appointment", content=missing, headers={"Content-Type": FHIR_XML}), 400)[0]
    assert issue["expression"] == ["Appointment.status"]
    assert clinic.book(slot).status_code == 201
    late = clinic.http.post("Appointment", content=booking(slot), headers=XML)
    assert late.status_code == 409
    assert value(as_xml(late, "OperationOutcome"), "issue/code") == "conflict"


def test_elements_in_another_order_than_that_of_the_schema_are_400(clinic: Clinic, slot: Resource) -> None:
    status = '<status value="booked"/>'
    late = booking(slot).replace(status, "").replace("  <comment", f"  {status}<comment")
    (issue,) = refusal(clinic.http.post("Appointment", content=late, headers={"Content-Type": FHIR_XML}), 400)
    assert issue["expression"] == ["Appointment.status"]
    assert "in front of slot" in issue["diagnostics"]
    commented = booking(slot).replace(status, f'<!-- taken --><status id="a" value="booked"/>{"":9}')
    assert clinic.http.post("Appointment", content=commented, headers=XML).status_code == 201


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE Appointment [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE Appointment SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE Appointment [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;">]>',
    ],
)
def test_a_document_type_is_400(clinic: Clinic, slot: Resource, declared: str) -> None:
    body = booking(slot, "&x;").replace("?>", "?>" + declared, 1)
    issue = refusal(clinic.http.post("Appointment", content=body, headers={"Content-Type": FHIR_XML}), 400)[0]
    assert "document type" in issue["diagnostics"]
    assert "root:" not in issue["diagnostics"]
    assert clinic.read(slot)["status"] == "free"
