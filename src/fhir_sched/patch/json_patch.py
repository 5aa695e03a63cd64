"""JSON Patch (RFC 6902): operations by a library, each within limits, every failure a sentence.

What is malformed is 400 before anything is done; what does not fit the document (no such path, a failed `test`) is 422.
Members that an operation does not need are passed over (RFC 6902 4). Knows no FHIR type.
"""

from __future__ import annotations

from typing import Any, cast

from jsonpatch import JsonPatch, JsonPatchException, JsonPatchTestFailed
from jsonpointer import EndOfList, JsonPointer, JsonPointerException

from fhir_sched.document import MAX_DEPTH
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch import limits
from fhir_sched.patch.guard import guarded

_NEEDED = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}
_RESULT = "the resource"


def apply_json_patch(document: dict[str, Any], operations: Any) -> dict[str, Any]:
    """The document after all operations; the one given is not touched, neither are the operations.

    Raises FhirError: 400 for what is no JSON Patch, 422 for a path that is not there, a `test` that fails or a change
    of what is the server's, 413 beyond the limits. Any of them means that nothing was changed.
    """
    if not isinstance(operations, list):
        raise FhirError(Kind.STRUCTURE, "a JSON Patch is an array of operations")
    limits.count_operations(operations)
    limits.size(operations, "a patch")
    for number, operation in enumerate(operations, 1):
        _check(number, operation)
    current: Any = limits.fresh(document)
    copied = 0
    for number, operation in enumerate(operations, 1):
        if operation["op"] == "copy":
            copied += _source_size(current, operation, number)
            if copied > limits.MAX_BYTES:
                raise FhirError(
                    Kind.TOO_LONG, f"{_named(number, operation)}: a patch may copy {limits.MAX_BYTES} bytes"
                )
        current = _applied(current, operation, number)
    limits.check_depth(current, _RESULT)
    return guarded(document, current)


def _check(number: int, operation: Any) -> None:
    """Raises 400 unless the operation is well-formed."""
    if not isinstance(operation, dict):
        raise _malformed(number, "is not an object")
    op = operation.get("op")
    needed = _NEEDED.get(op) if isinstance(op, str) else None
    if needed is None:
        raise _malformed(number, f"needs an op: one of {', '.join(_NEEDED)}")
    for name in needed:
        if name not in operation:
            raise _malformed(number, f"({op}) needs {name!r}")
        if name != "value":
            _check_pointer(number, name, operation[name])


def _check_pointer(number: int, name: str, pointer: Any) -> None:
    if not isinstance(pointer, str):
        raise _malformed(number, f"has a {name!r} that is not a string")
    if len(pointer) > limits.MAX_PATH or pointer.count("/") > MAX_DEPTH:
        raise _malformed(number, f"has a {name!r} of more than {limits.MAX_PATH} characters or {MAX_DEPTH} levels")
    try:
        JsonPointer(pointer)
    except JsonPointerException:
        raise _malformed(
            number, f"has a {name!r} that is no JSON Pointer: {pointer!a}; write one such as /participant/0/status"
        ) from None


def _source_size(current: Any, operation: dict[str, Any], number: int) -> int:
    try:
        source = JsonPointer(operation["from"]).resolve(current)
    except JsonPointerException:
        source = None
    # What is not there copies nothing: the library will say so.
    return 0 if source is None or isinstance(source, EndOfList) else limits.size(source, _RESULT)


def _applied(current: Any, operation: dict[str, Any], number: int) -> Any:
    """The document, changed in place."""
    try:
        changed = JsonPatch([operation]).apply(current, in_place=True)
    except JsonPatchTestFailed:
        raise FhirError(
            Kind.UNPROCESSABLE, f"{_named(number, operation)} failed: that value is not there; nothing was changed"
        ) from None
    except (JsonPatchException, JsonPointerException):
        # What the library says may quote the document.
        raise FhirError(
            Kind.UNPROCESSABLE, f"{_named(number, operation)}: {_unfit(operation)}; nothing was changed"
        ) from None
    if not isinstance(changed, dict):
        raise FhirError(Kind.UNPROCESSABLE, f"{_named(number, operation)}: a resource must stay a JSON object")
    if operation["op"] not in ("test", "remove"):
        limits.size(changed, _RESULT)
    return cast(dict[str, Any], changed)


def _unfit(operation: dict[str, Any]) -> str:
    match operation["op"]:
        case "add":
            return "the object or array that would hold it is not there, or the index is beyond its end"
        case "move" | "copy":
            return f"there is nothing at {operation['from']!a}, or no place for it at the path"
        case _:
            return "there is nothing at that path"


def _named(number: int, operation: dict[str, Any]) -> str:
    return f"operation {number} ({operation['op']} {operation['path']!a})"


def _malformed(number: int, what: str) -> FhirError:
    return FhirError(Kind.STRUCTURE, f"operation {number} {what}")
