"""The body of a PATCH: which kind of patch its Content-Type says, and what it holds. RFC 6902, RFC 5789, R4 3.1.0.6.

Knows neither resources nor what a patch does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhir_sched import document
from fhir_sched.http import negotiate
from fhir_sched.http.messages import Request
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch import FORMATS, JSON_PATCH

ACCEPT_PATCH = ("Accept-Patch", ", ".join(FORMATS))


def json_patch(request: Request) -> Callable[[], Any] | None:
    """What parses the operations (it raises 400 for a body that is not JSON); None for another Content-Type."""
    if request.method != "PATCH" or negotiate.media_type(request.header(b"content-type"))[0] != JSON_PATCH:
        return None
    return lambda: document.parse_any(request.body)


def body(request: Request) -> dict[str, Any]:
    """The resource in the body. Raises what `negotiate.parse` raises; a 415 of a PATCH says what is taken instead."""
    try:
        return negotiate.parse(request)
    except FhirError as error:
        if request.method != "PATCH" or error.status != Kind.MEDIA_TYPE.status:
            raise
        said = f"a PATCH may be {', '.join(FORMATS)}, not {request.header(b'content-type')[:100]!a}"
        raise FhirError(Kind.MEDIA_TYPE, said, headers=(ACCEPT_PATCH,)) from None
