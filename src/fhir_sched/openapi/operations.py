"""What every operation of the OpenAPI document is made of."""

from __future__ import annotations

from typing import Any, Final

Operation = dict[str, Any]
Placed = tuple[str, str, Operation]
"""Path, method, operation."""

BASE: Final = "/fhir/{tenant}"


def shared(name: str) -> dict[str, str]:
    """A parameter that several paths have."""
    return {"$ref": f"#/components/parameters/{name}"}


def operation(
    name: str, summary: str, tag: str, responses: dict[str, Any], given: list[dict[str, Any]] | None = None
) -> Operation:
    """An operation by its id; `given` are its parameters."""
    made: Operation = {"operationId": name, "summary": summary, "tags": [tag], "responses": responses}
    return {**made, "parameters": given} if given else made
