"""Media types: which format the answer has, whether the body's is one we read. R4 3.1.0.1.9, RFC 9110 12.5.1.

Inside the server every resource is JSON: XML is read when a body comes in and made when an answer goes out, here alone.
`_format` overrides Accept, never Content-Type. Knows no route and no resource.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from fhir_sched import document
from fhir_sched.http.messages import Headers, Request, Response, decode_form
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.xml import from_xml, to_xml

FHIR_JSON = b"application/fhir+json; charset=utf-8"
FHIR_XML = b"application/fhir+xml; charset=utf-8"
_JSON_TYPES = frozenset({"application/fhir+json", "application/json", "text/json"})
_XML_TYPES = frozenset({"application/fhir+xml", "application/xml", "text/xml"})
_VERSIONS = frozenset({"", "4.0", "4.0.1"})
_SERVED = "application/fhir+json or application/fhir+xml (FHIR 4.0)"


@dataclass(frozen=True, slots=True)
class Format:
    """How an answer goes out: its Content-Type, as XML or as JSON, indented or not."""

    content_type: bytes
    xml: bool = False
    pretty: bool = False

    def applied(self, response: Response) -> Response:
        """The response in this format; one that is no FHIR resource stays as it is."""
        if response.content_type == FHIR_JSON:
            response.content_type = self.content_type
            if response.body and (self.xml or self.pretty):
                response.body = self._rendered(response.body)
        return response

    def _rendered(self, body: bytes) -> bytes:
        resource = document.reread(body)
        return to_xml(resource, pretty=self.pretty) if self.xml else document.dumps(resource, pretty=True)


JSON = Format(FHIR_JSON)
_XML = Format(FHIR_XML, xml=True)
# What Accept may name, in the order in which we choose where it leaves the choice to us.
_OFFERED = {
    "application/fhir+json": JSON,
    "application/fhir+xml": _XML,
    "application/json": Format(b"application/json; charset=utf-8"),
    "application/xml": Format(b"application/xml; charset=utf-8", xml=True),
    "text/json": Format(b"text/json; charset=utf-8"),
    "text/xml": Format(b"text/xml; charset=utf-8", xml=True),
}
# A `+` in a URL is a space once it is decoded.
_WORDS = {
    **dict.fromkeys(("json", "application/fhir json", *_JSON_TYPES), JSON),
    **dict.fromkeys(("xml", "application/fhir xml", *_XML_TYPES), _XML),
}


def response_format(headers: Headers, encoded: bytes) -> Format:
    """The format of the answer to a request with this query string or form.

    Raises 406 when the client takes nothing that we have, 400 when the parameters are not percent-encoded UTF-8.
    """
    accept = headers.get(b"accept", b"")
    if b"_format" not in encoded and b"_pretty" not in encoded:
        return _by_accept(accept)
    asked = dict(reversed(decode_form(encoded)))  # the first of each name counts
    word = asked.get("_format", "")
    found = _by_word(word) if word else _by_accept(accept)
    return replace(found, pretty=asked.get("_pretty") == "true")


def _by_word(word: str) -> Format:
    kind, parameters = media_type(word)
    if kind in _WORDS and parameters.get("fhirversion", "") in _VERSIONS:
        return _WORDS[kind]
    raise FhirError(Kind.NOT_ACCEPTABLE, f"_format {word[:100]!a} is not served; use json or xml, that is {_SERVED}")


@lru_cache(maxsize=256)
def _by_accept(header: bytes) -> Format:
    accept = header.decode("latin-1")
    if not accept.strip():
        return JSON
    ranges = _ranges(accept)
    ranked = (
        (*fit, -order, offered)
        for order, (kind, offered) in enumerate(_OFFERED.items())
        if (fit := _fit(kind, ranges))[0] > 0
    )
    best = max(ranked, key=lambda each: each[:-1], default=None)
    if best is None:
        raise FhirError(Kind.NOT_ACCEPTABLE, f"Accept {accept[:100]!a} names no format that is served; use {_SERVED}")
    return best[-1]


def _ranges(accept: str) -> dict[str, tuple[float, int]]:
    """Quality and place of each media range that asks for FHIR 4.0."""
    found: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(accept.split(",")):
        kind, parameters = media_type(part)
        if parameters.get("fhirversion", "") in _VERSIONS:
            found.setdefault(kind, (_quality(parameters.get("q", "1")), -place))
    return found


def _fit(kind: str, ranges: dict[str, tuple[float, int]]) -> tuple[float, int, int]:
    """Quality by the most specific range that holds this type, how specific that is, and its place."""
    main = kind.partition("/")[0]
    for specificity, each in ((2, kind), (1, f"{main}/*"), (0, "*/*")):
        if each in ranges:
            quality, place = ranges[each]
            return quality, specificity, place
    return 0.0, 0, 0


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def media_type(text: str) -> tuple[str, dict[str, str]]:
    """`type/subtype` in lower case and its parameters."""
    kind, *rest = text.split(";")
    pairs = (part.partition("=") for part in rest)
    return kind.strip().lower(), {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}


def parse(request: Request) -> dict[str, Any]:
    """The resource in the body, whichever format it has; without a Content-Type it is taken for JSON.

    Raises 415 unless Content-Type is FHIR 4.0 in JSON or XML and UTF-8, 400 for a body that is not what it says.
    """
    text = request.header(b"content-type")
    if not text:
        return document.parse(request.body)
    kind, parameters = media_type(text)
    if parameters.get("fhirversion", "") in _VERSIONS and parameters.get("charset", "utf-8") in ("utf-8", "utf8"):
        if kind in _JSON_TYPES:
            return document.parse(request.body)
        if kind in _XML_TYPES:
            return from_xml(request.body)
    raise FhirError(Kind.MEDIA_TYPE, f"Content-Type {text[:100]!a} is not read; send {_SERVED} in UTF-8")


def require_form(request: Request) -> None:
    """Raises 415 unless the body is a form or empty (POST _search)."""
    if request.body and not is_form(request.headers):
        raise FhirError(Kind.MEDIA_TYPE, "POST _search takes a body of type application/x-www-form-urlencoded")


def is_form(headers: Headers) -> bool:
    """Whether the body holds parameters, as that of POST _search does; so it is taken without a Content-Type."""
    kind, _ = media_type(headers.get(b"content-type", b"").decode("latin-1"))
    return kind in ("", "application/x-www-form-urlencoded")
