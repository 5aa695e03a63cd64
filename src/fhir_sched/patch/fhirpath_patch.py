"""FHIRPath Patch (R4 fhirpatch): a Parameters resource with operations add, insert, delete, replace and move.

Law: `replace` and `add` need one element at the path, `delete` at most one; `add` to what does not repeat needs it
absent; `insert` goes from 0 to the number of elements; `move` stays in its list. Operations see what those before them
did. What becomes empty goes when all are done. Knows nothing of HTTP and of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.patch import limits
from fhir_sched.patch.given import given
from fhir_sched.patch.guard import guarded
from fhir_sched.patch.limits import Effort
from fhir_sched.patch.places import Object, Place, columns, element, places, present, put, remove, store
from fhir_sched.patch.steps import Member, Step, steps
from fhir_sched.validate import resource_issues


def apply_fhirpath_patch(document: Object, parameters: Any) -> Object:
    """The document after all operations; the one given is not touched, neither are the parameters.

    Raises FhirError: 400 for what is no FHIRPath Patch, 422 for a path that does not lead where the operation needs it,
    a value of another type or a change of what is the server's, 413 beyond the limits. Any of them means that nothing
    was changed.
    """
    limits.size(parameters, "a patch")
    listed = parameters.get("parameter", []) if isinstance(parameters, dict) else None
    if isinstance(listed, list):
        limits.count_operations(listed)
    issues = resource_issues(parameters, "Parameters")
    if issues:
        raise FhirError.of(issues)
    operations = [_operation(number, item) for number, item in enumerate(listed or [])]
    current, effort = limits.fresh(document), Effort()
    for number, operation in enumerate(operations):
        try:
            _OPERATIONS[operation.type](current, operation, effort)
        except FhirError as error:
            raise _placed(error, number, f"({operation.type} {operation.path})") from None
    limits.size(current, "the resource")
    limits.check_depth(current, "the resource")
    return guarded(document, _without_empties(current) or {})


@dataclass(frozen=True, slots=True)
class _Operation:
    """One operation: `steps` of its `path`, and its parts by name."""

    type: str
    path: str
    steps: tuple[Step, ...]
    parts: dict[str, Object]

    def text(self, name: str) -> str:
        """The string of a part. Raises 400 when it is not there."""
        part = self.parts.get(name, {})
        for member in ("valueString", "valueCode", "valueId", "valueMarkdown"):
            if member in part:
                return str(part[member])
        raise FhirError(Kind.REQUIRED, f"the operation needs a part {name!r} with a valueString")

    def number(self, name: str) -> int:
        """The integer of a part. Raises 400 when it is not there."""
        part = self.parts.get(name, {})
        for member in ("valueInteger", "valueUnsignedInt", "valuePositiveInt"):
            if member in part:
                return int(part[member])
        raise FhirError(Kind.REQUIRED, f"the operation needs a part {name!r} with a valueInteger")

    @property
    def value(self) -> Object:
        """The value part. Raises 400 when it is not there."""
        if "value" not in self.parts:
            raise FhirError(Kind.REQUIRED, "the operation needs a part 'value'")
        return limits.fresh(self.parts["value"])  # type: ignore[no-any-return] # a copy of an object is one


def _operation(number: int, item: Object) -> _Operation:
    """The operation in one parameter. Raises 400 unless it is complete."""
    try:
        return _read(item)
    except FhirError as error:
        raise _placed(error, number, "") from None


def _read(item: Object) -> _Operation:
    if item["name"] != "operation":
        raise FhirError(Kind.INVALID, f"a patch has parameters named 'operation', not {item['name'][:60]!r}")
    parts: dict[str, Object] = {}
    for part in item.get("part", ()):
        if part["name"] in parts:
            raise FhirError(Kind.INVALID, f"the part {part['name'][:60]!r} may be given once")
        parts[part["name"]] = part
    found = _Operation("", "", (), parts)
    kind, path = found.text("type"), found.text("path")
    if kind not in _OPERATIONS:
        raise FhirError(Kind.CODE_INVALID, f"{kind[:60]!r} is no operation; use {', '.join(_OPERATIONS)}")
    return _Operation(kind, path, steps(path), parts)


def _placed(error: FhirError, number: int, what: str) -> FhirError:
    """The same refusal, which says the operation it is about."""
    said = f"operation {number + 1}{' ' * bool(what)}{what}"
    where = f"Parameters.parameter[{number}]"
    return FhirError.of(Issue(issue.kind, f"{said}: {issue.diagnostics}", where) for issue in error.issues)


def _add(document: Object, operation: _Operation, effort: Effort) -> None:
    name, value = operation.text("name"), operation.value
    place = _one(places(document, operation.steps, effort))
    if place is None:
        raise _nothing()
    definition = place.type_def()
    new = given(definition, name, value)
    host = place.members(make=True)
    wanted = element(definition, name.removesuffix("[x]"))
    if wanted.repeats:
        values, siblings = columns(host, new.json_name)
        store(host, new.json_name, [*values, new.value], [*siblings, new.sibling])
        return
    there, _ = present(definition, host, wanted.name)
    if host.get(there) or host.get(there) in (False, 0) or host.get("_" + there):
        raise FhirError(Kind.UNPROCESSABLE, f"{definition.name} has its {wanted.name} already; use replace")
    put(host, there, None, None, None)
    put(host, new.json_name, None, new.value, new.sibling)


def _insert(document: Object, operation: _Operation, effort: Effort) -> None:
    holder, name = _list(document, operation, effort)
    new = given(holder.type_def(), name, operation.value)
    host = holder.members(make=True)
    values, siblings = columns(host, new.json_name)
    at = _position(operation, "index", len(values))
    values.insert(at, new.value)
    siblings.insert(at, new.sibling)
    store(host, new.json_name, values, siblings)


def _delete(document: Object, operation: _Operation, effort: Effort) -> None:
    place = _one(places(document, operation.steps, effort))
    if place is None:
        return
    _refuse_root(place)
    remove(place)


def _replace(document: Object, operation: _Operation, effort: Effort) -> None:
    place = _one(places(document, operation.steps, effort))
    if place is None:
        raise _nothing()
    _refuse_root(place)
    new = given(place.owner, place.name, operation.value)
    if new.json_name != place.name:  # another type of a choice
        remove(place)
    put(place.holder, new.json_name, place.index, new.value, new.sibling)


def _move(document: Object, operation: _Operation, effort: Effort) -> None:
    holder, name = _list(document, operation, effort)
    host = holder.members()
    values, siblings = columns(host, name)
    source = _position(operation, "source", len(values) - 1)
    destination = _position(operation, "destination", len(values) - 1)
    for items in (values, siblings):
        items.insert(destination, items.pop(source))
    store(host, name, values, siblings)


def _one(found: list[Place]) -> Place | None:
    """The one element, or None for none. Raises 422 for several."""
    if len(found) > 1:
        raise FhirError(Kind.UNPROCESSABLE, f"there are {len(found)} elements at the path, where one is needed")
    return found[0] if found else None


def _nothing() -> FhirError:
    return FhirError(Kind.UNPROCESSABLE, "there is no element at the path")


def _refuse_root(place: Place) -> None:
    if place.is_root:
        raise FhirError(Kind.UNPROCESSABLE, "the path is the resource itself; name an element of it")


def _list(document: Object, operation: _Operation, effort: Effort) -> tuple[Place, str]:
    """Where the list of a path that ends with its name is, and the name. Raises 422 for what is no list."""
    *front, last = operation.steps
    if not isinstance(last, Member):
        raise FhirError(
            Kind.UNPROCESSABLE, "the path must end with the name of the list, such as Appointment.participant"
        )
    # Without a step in front the list is the resource's: `participant` for `Appointment.participant`.
    holder = _one(places(document, tuple(front), effort))
    if holder is None:
        raise _nothing()
    if not element(holder.type_def(), last.name).repeats:
        raise FhirError(Kind.UNPROCESSABLE, f"{holder.type_def().name}.{last.name} is no list")
    return holder, last.name


def _position(operation: _Operation, name: str, last: int) -> int:
    position = operation.number(name)
    if not 0 <= position <= last:
        said = f"0 to {last}" if last >= 0 else "nothing: the list is empty"
        raise FhirError(Kind.UNPROCESSABLE, f"the {name} {position} is not in the list; it can be {said}")
    return position


def _without_empties(value: Any) -> Any:
    """The value without objects and lists that hold nothing (a JSON FHIR document has none); None when all goes."""
    if isinstance(value, dict):
        rest = {name: _without_empties(item) for name, item in value.items()}
        return {name: item for name, item in rest.items() if item is not None} or None
    if not isinstance(value, list):
        return value
    items = [_without_empties(item) for item in value]
    return items if any(item is not None for item in items) else None


_OPERATIONS: dict[str, Callable[[Object, _Operation, Effort], None]] = {
    "add": _add,
    "insert": _insert,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}
