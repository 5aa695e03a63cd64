"""Media types: which format the answer has, whether the body's is one we read. R4 3.1.0.1.9, RFC 9110 12.5.1.

JSON so far. `_format` overrides Accept, never Content-Type. Knows no route and no resource.
"""

from __future__ import annotations

from functools import lru_cache

from fhir_sched.http.messages import Request
from fhir_sched.outcome import FhirError, Kind

FHIR_JSON = b"application/fhir+json; charset=utf-8"
_JSON_TYPES = {"application/fhir+json", "application/json", "text/json"}
_JSON_WORDS = {"json", "application/fhir json", *_JSON_TYPES}
_VERSIONS = {"", "4.0", "4.0.1"}


def response_type(request: Request) -> bytes:
    """The Content-Type of the answer. Raises 406 when the client takes nothing that we have."""
    if b"_format" in request.query_string:
        for name, value in request.parameters:
            if name == "_format":
                return _by_word(value)
    return _by_accept(request.header(b"accept"))


def _by_word(word: str) -> bytes:
    kind, parameters = media_type(word)
    if kind in _JSON_WORDS and parameters.get("fhirversion", "") in _VERSIONS:
        return FHIR_JSON
    raise FhirError(Kind.NOT_ACCEPTABLE, f"_format {word!r} is not served; use json (application/fhir+json, FHIR 4.0)")


@lru_cache(maxsize=256)
def _by_accept(accept: str) -> bytes:
    if not accept.strip():
        return FHIR_JSON
    best: tuple[float, bytes] = (0.0, b"")
    for part in accept.split(","):
        kind, parameters = media_type(part)
        quality = _quality(parameters.get("q", "1"))
        chosen = _chosen(kind, parameters)
        if chosen and quality > best[0]:
            best = (quality, chosen)
    if not best[1]:
        raise FhirError(
            Kind.NOT_ACCEPTABLE, f"Accept {accept!r} names no format that is served; use application/fhir+json"
        )
    return best[1]


def _chosen(kind: str, parameters: dict[str, str]) -> bytes:
    if parameters.get("fhirversion", "") not in _VERSIONS:
        return b""
    if kind in ("*/*", "application/*", "application/fhir+json"):
        return FHIR_JSON
    return f"{kind}; charset=utf-8".encode() if kind in _JSON_TYPES else b""


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


def require_json(request: Request) -> None:
    """Raises 415 unless the body is FHIR 4.0 JSON (a missing Content-Type is taken for it)."""
    text = request.header(b"content-type")
    if not text:
        return
    kind, parameters = media_type(text)
    fits = (
        kind in _JSON_TYPES
        and parameters.get("fhirversion", "") in _VERSIONS
        and parameters.get("charset", "utf-8") in ("utf-8", "utf8")
    )
    if not fits:
        raise FhirError(
            Kind.MEDIA_TYPE, f"Content-Type {text!r} is not read; send application/fhir+json (FHIR 4.0, UTF-8)"
        )


def require_form(request: Request) -> None:
    """Raises 415 unless the body is a form or empty (POST _search)."""
    kind, _ = media_type(request.header(b"content-type"))
    if request.body and kind not in ("", "application/x-www-form-urlencoded"):
        raise FhirError(Kind.MEDIA_TYPE, "POST _search takes a body of type application/x-www-form-urlencoded")
