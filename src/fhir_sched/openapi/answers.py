"""The answers of an operation by status: media type, schema, headers. R4 3.1.0 (http), RFC 9110 15.

Every refusal is an OperationOutcome. Knows no path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

FHIR_JSON: Final = "application/fhir+json"
FHIR_XML: Final = "application/fhir+xml"
FORM: Final = "application/x-www-form-urlencoded"

_REFUSALS: Final = {
    304: "Not modified: the client has the current version",
    400: "Not valid FHIR R4, or parameters that are not understood",
    401: "A token is needed, or this one is not valid",
    403: "The token does not reach so far",
    404: "There is nothing at this URL, or it is no tenant's",
    405: "The method, or an update of an id that never existed, is not possible here",
    406: "None of the formats that the client takes is served",
    409: "Taken, overlapping, or still needed by other resources",
    410: "It was deleted",
    412: "Another version is current, or several resources match the criteria",
    413: "The body is too long",
    414: "The URL is too long",
    415: "The media type of the body is not read",
    422: "Valid FHIR that breaks a rule of scheduling",
    500: "The server failed; the failure has been logged",
    503: "The server is busy, or the database can't be reached; try again",
}

_OUTCOME: Final = {"$ref": "#/components/schemas/OperationOutcome"}
_ALWAYS: Final = (400, 401, 403, 404, 406, 414, 500, 503)
READING: Final = (*_ALWAYS, 405)
WRITING: Final = (*_ALWAYS, 405, 409, 412, 413, 415, 422)


def refusals(statuses: Iterable[int]) -> dict[str, Any]:
    """References to the shared refusals."""
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(set(statuses))}


def components() -> dict[str, Any]:
    """The shared refusals by status."""
    return {str(status): _refusal(status, said) for status, said in _REFUSALS.items()}


def _refusal(status: int, said: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": said}
    if status == 405:
        answer["headers"] = {"Allow": _header("The methods that the URL takes", required=True)}
    if status != 304:
        answer["content"] = _content(_OUTCOME)
    return answer


def resource(description: str, schema: str, *, versioned: bool = True, located: bool = False) -> dict[str, Any]:
    """An answer with a resource; `versioned`: with ETag and Last-Modified, `located`: with Location."""
    headers = {}
    if versioned:
        headers["ETag"] = _header('The version, as W/"1"')
        headers["Last-Modified"] = _header("When the version was made")
    if located:
        headers["Location"] = _header("The URL of the new version")
    answer: dict[str, Any] = {"description": description}
    if headers:
        answer["headers"] = headers
    shown: dict[str, Any] = {"$ref": f"#/components/schemas/{schema}"}
    # Prefer: return=OperationOutcome
    return {**answer, "content": _content({"anyOf": [shown, _OUTCOME]} if located else shown)}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    """A resource in either format; XML has no schema here."""
    return {FHIR_JSON: {"schema": schema}, FHIR_XML: {"schema": {"type": "string"}}}


def bundle(description: str) -> dict[str, Any]:
    """An answer with a Bundle."""
    return resource(description, "Bundle", versioned=False)


def form(fields: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A request body: a form with the same fields as those query parameters."""
    properties = {each["name"]: each["schema"] for each in fields}
    return {"content": {FORM: {"schema": {"type": "object", "properties": properties}}}}


def body(schema: dict[str, Any], examples: dict[str, Any], *kinds: str) -> dict[str, Any]:
    """A request body: a resource in either format, or that of other `kinds`."""
    content = {"schema": schema, "examples": examples}
    listed = dict.fromkeys(kinds or (FHIR_JSON,), content)
    return {"required": True, "content": listed if kinds else {**listed, FHIR_XML: {"schema": {"type": "string"}}}}


def _header(description: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": "string"}}


def media(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer of another media type."""
    return {"description": description, "content": {kind: {"schema": schema}}}
