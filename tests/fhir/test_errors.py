"""Whatever a client sends, it is told in FHIR what is wrong: never 5xx, never HTML, never SQL; all issues at once."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from clinic import Clinic, appointment, as_resource, name, refusal, schedule, slot

SLOT = slot({"resourceType": "Schedule", "id": "sch-00000000-0000-4000-8000-000000000000"}, "2026-06-02T09:00:00Z")
DIGITS = "1" * 5000
PREFIX = {"Schedule": "sch", "Slot": "slt", "Appointment": "apt"}


def _text(resource: dict[str, Any], **raw: str) -> bytes:
    """The resource as JSON, with members whose values are raw text."""
    members = [json.dumps(resource)[1:-1], *(f'"{key}":{value}' for key, value in raw.items())]
    return ("{" + ",".join(members) + "}").encode()


BODIES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("white space", b" \n\t"),
    ("no JSON", b"hello"),
    ("half a document", b'{"resourceType":"Schedule"'),
    ("two documents", _text(schedule()) * 2),
    ("an array", b"[" + _text(schedule()) + b"]"),
    ("null", b"null"),
    ("a string", b'"Schedule"'),
    ("a number", b"1"),
    ("an empty object", b"{}"),
    ("no type", b'{"actor":[{"reference":"Practitioner/1"}]}'),
    ("a type that is a number", b'{"resourceType":1}'),
    ("a type that is null", b'{"resourceType":null}'),
    ("a type that is a list", b'{"resourceType":["Schedule"]}'),
    ("a type that there is not", b'{"resourceType":"Nope"}'),
    ("another type", _text(appointment())),
    ("XML", b'<Schedule xmlns="http://hl7.org/fhir"/>'),
    ("a name twice", _text(schedule(), comment='"a"', **{"comment ": '"b"'}).replace(b'"comment "', b'"comment"')),
    ("not UTF-8", b'{"resourceType":"Schedule","comment":"\xff"}'),
    ("UTF-16", json.dumps(schedule()).encode("utf-16")),
    ("NUL", _text(schedule(), comment='"a\\u0000b"')),
    ("a raw NUL", _text(schedule(), comment='"a\x00b"')),
    ("a raw line feed", _text(schedule(), comment='"a\nb"')),
    ("a lone surrogate", _text(schedule(), comment='"\\ud800"')),
    ("the other lone surrogate", _text(schedule(), comment='"\\udc00x"')),
    ("a lone surrogate in a name", _text(schedule(), **{"\\ud800": "1"})),
    ("NaN", _text(schedule(), comment="NaN")),
    ("Infinity", _text(appointment(), priority="-Infinity")),
    ("a 5,000-digit number", _text(appointment(), priority=DIGITS)),
    ("a 5,000-digit decimal", _text(schedule(), extension=f'[{{"url":"http://x","valueDecimal":1.{DIGITS}}}]')),
    ("a huge exponent", _text(schedule(), extension='[{"url":"http://x","valueDecimal":1e999999999}]')),
    ("a number beyond 32 bits", _text(appointment(), priority="99999999999")),
    ("a number with a fraction", _text(appointment(), priority="5.0")),
    ("a number as text", _text(appointment(), priority='"5"')),
    ("a negative number", _text(appointment(), priority="-1")),
    ("a bad number", _text(appointment(), priority="01")),
    ("a comment", b'{"resourceType":"Schedule" /* x */}'),
    ("a trailing comma", b'{"resourceType":"Schedule",}'),
    ("1,000 levels of lists", _text(schedule(), comment="[" * 1000 + "]" * 1000)),
    ("1,000 levels of objects", b'{"a":' * 1000 + b"1" + b"}" * 1000),
    ("100,000 open brackets", b"[" * 100_000),
    ("100,000 open objects", b'{"a":' * 100_000),
    (
        "1,000 levels of extensions",
        _text(schedule(), extension='[{"url":"http://x","extension":' * 1000 + "[]" + "}]" * 1000),
    ),
    ("true where a list belongs", _text(schedule(), serviceType="true")),
    ("an object where a list belongs", _text(schedule(), serviceType='{"text":"x"}')),
    ("a list where a text belongs", _text(schedule(), comment='["x"]')),
    ("an empty text", _text(schedule(), comment='""')),
    ("an empty list", _text(schedule(), serviceType="[]")),
    ("an empty object as element", _text(schedule(), planningHorizon="{}")),
    ("null as element", _text(schedule(), comment="null")),
    ("null in a list", _text(schedule(), serviceType="[null]")),
    ("an unknown element", _text(schedule(), nonsense="1")),
    ("an element of R5", _text(schedule(), name='"x"')),
    ("a wrong code", _text(appointment(), status='"no-show"').replace(b'"status": "booked", ', b"")),
    ("a date that is none", _text(schedule(), planningHorizon='{"start":"2026-02-30"}')),
    ("a period that runs backwards", _text(schedule(), planningHorizon='{"start":"2026-03-02","end":"2026-03-01"}')),
    ("an instant without offset", _text({**SLOT, "start": "2026-06-02T09:00:00"})),
    ("an instant with a number", _text({**SLOT, "start": 1700000000})),
    ("an instant at 24:00", _text({**SLOT, "start": "2026-06-02T24:00:00Z"})),
    ("an instant in Arabic digits", _text({**SLOT, "start": "٢٠٢٦-06-02T09:00:00Z"})),
    ("no status", _text({key: value for key, value in SLOT.items() if key != "status"})),
    ("a reference to another type", _text({**SLOT, "schedule": {"reference": "Patient/1"}})),
    ("a reference that is a text", _text({**SLOT, "schedule": "Schedule/1"})),
    ("an id with an underscore", _text(schedule(id="sch_1"))),
    ("an id of 65 letters", _text(schedule(id="a" * 65))),
    ("contained of no type", _text(schedule(contained=[{"id": "x"}]))),
    ("contained of an unknown type", _text(schedule(contained=[{"resourceType": "Nope", "id": "x"}]))),
    (
        "a script in the narrative",
        _text(
            schedule(
                text={
                    "status": "generated",
                    "div": '<div xmlns="http://www.w3.org/1999/xhtml"><script>1</script></div>',
                }
            )
        ),
    ),
    (
        "an entity bomb",
        _text(
            schedule(
                text={
                    "status": "generated",
                    "div": '<!DOCTYPE d [<!ENTITY a "x">]><div xmlns="http://www.w3.org/1999/xhtml">&a;</div>',
                }
            )
        ),
    ),
    ("an extension without url", _text(schedule(extension=[{"valueString": "x"}]))),
    (
        "an extension with two values",
        _text(schedule(extension=[{"url": "http://x", "valueString": "x", "valueCode": "y"}])),
    ),
]


@pytest.mark.parametrize(("what", "body"), BODIES, ids=[what for what, _ in BODIES])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_that_is_no_resource_is_400(shared: Clinic, what: str, body: bytes, method: str) -> None:
    kind = next((kind for kind in ("Slot", "Appointment") if f'"{kind}"'.encode() in body), "Schedule")
    if what == "another type":
        kind = "Schedule"
    url = kind if method == "POST" else f"{kind}/{PREFIX[kind]}-00000000-0000-4000-8000-000000000000"
    issues = refusal(shared.http.request(method, url, content=body), 400)
    assert len(issues[0]["diagnostics"]) < 1000
    for word in ("Traceback", "psycopg", "select ", "insert "):
        assert word not in issues[0]["diagnostics"]


def test_all_issues_are_listed_with_their_places(shared: Clinic) -> None:
    body = appointment(
        status="no-show",
        start="yesterday",
        priority=-1,
        participant=[{"actor": {"reference": "Slot/1"}, "status": "maybe"}, {"required": "sometimes"}],
        nonsense=1,
        minutesDuration=0,
    )
    issues = refusal(shared.http.post("Appointment", json=body), 400)
    places = {place for issue in issues for place in issue.get("expression", [])}
    assert {
        "Appointment.status",
        "Appointment.start",
        "Appointment.priority",
        "Appointment.participant[0].actor",
        "Appointment.participant[0].status",
        "Appointment.participant[1].required",
        "Appointment.minutesDuration",
    } <= places | {place.removesuffix(".reference") for place in places}
    assert len(issues) >= 9
    by_place = {issue["expression"][0]: issue["diagnostics"] for issue in issues if issue.get("expression")}
    assert "noshow" in by_place["Appointment.status"]
    assert "accepted" in by_place["Appointment.participant[0].status"]


def test_a_body_with_thousands_of_faults_gets_a_bounded_answer(shared: Clinic) -> None:
    body = schedule(**{f"nonsense{number}": number for number in range(5000)})
    answer = shared.http.post("Schedule", json=body)
    assert len(refusal(answer, 400)) <= 60
    assert len(answer.content) < 100_000


@pytest.mark.parametrize("size", [5, 10, 40])
def test_a_body_of_many_megabytes_is_413(shared: Clinic, size: int) -> None:
    body = _text(schedule(), comment='"' + "x" * (size * 1024 * 1024) + '"')
    assert refusal(shared.http.post("Schedule", content=body), 413)[0]["code"] == "too-long"


def test_a_body_of_many_megabytes_in_pieces_is_413(shared: Clinic) -> None:
    pieces = (b" " * 65536 for _ in range(160))
    answer = shared.http.post("Schedule", content=pieces)
    refusal(answer, 413)


def test_a_large_valid_body_is_kept(clinic: Clinic) -> None:
    made = clinic.schedule(comment="x" * 1_000_000)
    assert clinic.read(made) == made


ROUTES = [
    ("GET", "/fhir/{tenant}/Nope", 404),
    ("GET", "/fhir/{tenant}/Patient", 404),
    ("GET", "/fhir/{tenant}/Patient/1", 404),
    ("POST", "/fhir/{tenant}/Patient", 404),
    ("GET", "/fhir/{tenant}/slot", 404),
    ("GET", "/fhir/{tenant}/Slot/1/2/3", 404),
    ("GET", "/fhir/{tenant}/Slot/$nonsense", 404),
    ("GET", "/fhir/{tenant}/$nonsense", 404),
    ("GET", "/fhir/{tenant}//Slot", 404),
    ("GET", "/fhir/{tenant}/Slot//1", 404),
    ("GET", "/fhir/not-a-tenant/Slot", 404),
    ("GET", "/fhir/", 404),
    ("GET", "/fhir", 404),
    ("GET", "/nothing/here", 404),
    ("GET", "/fhir/00000000/Slot", 404),
    ("PUT", "/fhir/{tenant}/metadata", 405),
    ("POST", "/fhir/{tenant}/metadata", 405),
    ("GET", "/fhir/{tenant}/Slot/_search", None),
    ("PUT", "/fhir/{tenant}/Slot/_search", None),
    ("POST", "/fhir/{tenant}/Slot/slt-00000000-0000-4000-8000-000000000000", None),
    ("BREW", "/fhir/{tenant}/Slot", None),
    ("TRACE", "/fhir/{tenant}/Slot", 405),
    ("CONNECT", "/fhir/{tenant}/Slot", None),
    ("PROPFIND", "/nothing", None),
    ("DELETE", "/healthz", None),
    ("GET", "/fhir/{tenant}/Slot/%", None),
    ("GET", "/fhir/{tenant}/Slot/%zz", None),
    ("GET", "/fhir/{tenant}/%FF%FE", None),
    ("GET", "/fhir/{tenant}/Slot/%FF", None),
    ("GET", "/fhir/%00/Slot", None),
    ("GET", "/fhir/{tenant}/Slot?status=%FF", 400),
    ("GET", "/fhir/{tenant}/Slot?%FF=1", 400),
    ("GET", "/fhir/{tenant}/Slot?identifier=%00", 400),
    ("GET", "/fhir/{tenant}/Slot?start=%ED%A0%80", 400),
    ("GET", "/fhir/{tenant}/Slot?" + "a" * 20000, 414),
    ("GET", "/fhir/{tenant}/" + "a" * 20000, 414),
    ("GET", "/fhir/{tenant}/Slot/../../../etc/passwd", None),
    ("GET", "/fhir/{tenant}/Slot/%2e%2e", None),
]


@pytest.mark.parametrize(("method", "path", "status"), ROUTES)
def test_an_unknown_route_or_method_is_said_in_fhir(shared: Clinic, method: str, path: str, status: int | None) -> None:
    answer = _raw(shared, method, path.format(tenant=shared.tenant))
    assert 400 <= answer.status_code < 500, answer.status_code
    refusal(answer, answer.status_code if status is None else status)
    if answer.status_code == 405:
        assert answer.headers["allow"]


def _raw(clinic: Clinic, method: str, target: str, headers: str = "", body: bytes = b"") -> httpx.Response:
    """The answer to a request whose target is sent as it stands."""
    host, port = clinic.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head_, _, content = received.partition(b"\r\n\r\n")
    first, *rest = head_.decode("latin-1").split("\r\n")
    pairs = [(key, value.strip()) for key, _, value in (line.partition(":") for line in rest)]
    plain = [(key, value) for key, value in pairs if key.lower() not in ("transfer-encoding", "content-length")]
    return httpx.Response(int(first.split(" ")[1]), headers=plain, content=content)


QUERIES = [
    "_count=-1",
    "_count=x",
    "_count=1.5",
    "_count=%D9%A1",
    "_total=many",
    "_summary=some",
    "_page=x",
    "_page=",
    "_page=%FF",
    "_sort=start&_page=e30",
    "_include:nonsense=Slot:schedule",
    "_revinclude:x=Appointment:slot",
    "&".join(f"status=a{number}" for number in range(101)),
    "status=" + ",".join(f"a{number}" for number in range(501)),
    "&".join(["_include=Slot:schedule"] * 21),
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_bad_result_parameter_is_400(shared: Clinic, query: str) -> None:
    answer = shared.http.get(f"Slot?{query}")
    if query in ("_page=",):
        assert answer.status_code in (200, 400)
    else:
        refusal(answer, 400)


@pytest.mark.parametrize(
    "value",
    [
        "' or '1'='1",
        "'; drop table slots; --",
        "\\",
        "%%",
        "$1",
        "{}",
        '{"a"}',
        "a,b",
        "NULL",
        "\u0000",
        "😀",
        "\u202e",
        "a" * 5000,
    ],
)
def test_no_value_leaves_its_place_in_a_statement(shared: Clinic, value: str) -> None:
    for parameter in ("status", "service-type", "identifier", "_id", "schedule", "_profile", "start", "schedule.actor"):
        answer = shared.http.get("Slot", params={parameter: value})
        assert answer.status_code in (200, 400), f"{parameter}: {answer.text[:300]}"
        if answer.status_code == 200:
            assert as_resource(answer).get("total") == 0


@pytest.mark.parametrize("header", ["Accept", "Content-Type", "If-Match", "Prefer", "X-Request-Id", "Origin"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a" * 8000, b",,,;;;===", b'"', b"q=;q=,*/*;q=x", b"%00"])
def test_no_header_is_an_error_of_the_server(shared: Clinic, header: str, value: bytes) -> None:
    made = shared.schedule()
    for method, url in (("GET", name(made)), ("PUT", name(made)), ("POST", "Schedule")):
        answer = shared.http.request(method, url, content=json.dumps(made), headers=[(header.encode(), value)])
        assert answer.status_code < 500
        if answer.status_code >= 400:
            refusal(answer, answer.status_code)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("Content-Length: x\r\n", b"{}"),
        ("Transfer-Encoding: nonsense\r\n", b"{}"),
        ("Host: a\r\n", b""),
    ],
)
def test_a_malformed_request_never_is_a_500(shared: Clinic, headers: str, body: bytes) -> None:
    try:
        answer = _raw(shared, "POST", f"/fhir/{shared.tenant}/Schedule", headers, body)
    except (OSError, IndexError):
        return  # closed without an answer
    assert answer.status_code < 500


def test_a_host_header_can_not_put_words_into_links(shared: Clinic) -> None:
    answer = shared.http.get("Slot", headers={"Host": 'evil.example/"><script>'})
    assert answer.status_code in (200, 400)
    assert "script" not in answer.text


def test_options_says_what_is_allowed(shared: Clinic) -> None:
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type, if-match",
    }
    answer = shared.http.options("Slot/1", headers=headers)
    assert answer.status_code in (200, 204)
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "if-match" in answer.headers["access-control-allow-headers"].lower()


def test_a_body_is_read_whatever_pieces_it_comes_in(shared: Clinic) -> None:
    for kilobytes in (60, 70, 100, 200, 300, 1000):
        made = shared.schedule(comment="x" * kilobytes * 1024)
        assert shared.read(made) == made
