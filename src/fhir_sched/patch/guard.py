"""What no patch may change, and the narrative that a change makes untrue. R4 3.1.0.6, 2.4.

Law: id, resourceType, meta.versionId and meta.lastUpdated are the server's. A narrative that was generated from the
data (`generated`, `extensions`) goes when the data changed and the narrative did not: it would say what is no longer
so. One with content of its own (`additional`, `empty`) stays. Knows no patch format.
"""

from __future__ import annotations

from typing import Any

from fhir_sched.outcome import FhirError, Issue, Kind

_PROTECTED = (("resourceType",), ("id",), ("meta", "versionId"), ("meta", "lastUpdated"))
_DERIVED = ("generated", "extensions")


def guarded(before: dict[str, Any], after: Any) -> dict[str, Any]:
    """The patched document, without a narrative that is no longer true. Raises 422 for a change that is forbidden."""
    if not isinstance(after, dict):
        raise FhirError(Kind.UNPROCESSABLE, "a patch must leave a resource, which is a JSON object")
    issues = [_issue(before, path) for path in _PROTECTED if _at(before, path) != _at(after, path)]
    if issues:
        raise FhirError.of(issues)
    text = after.get("text")
    untouched = isinstance(text, dict) and text == before.get("text") and text.get("status") in _DERIVED
    if untouched and after != before:
        return {name: value for name, value in after.items() if name != "text"}
    return after


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _issue(before: dict[str, Any], path: tuple[str, ...]) -> Issue:
    name = ".".join(path)
    kind = before.get("resourceType")
    return Issue(Kind.UNPROCESSABLE, f"{name} is the server's and can't be patched", f"{kind}.{name}" if kind else None)
