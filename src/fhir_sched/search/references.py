"""Clauses on references: columns of ids with their types, and columns of whole references as text. R4 3.1.1.4.13.

Pure: no connection, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_sched.binding import ReferenceColumn, References, ReferenceText
from fhir_sched.definition import ReferenceParam
from fhir_sched.mapping import column_uuid
from fhir_sched.reference import Target, is_uuid
from fhir_sched.search import side
from fhir_sched.search.predicate import EMPTY, Arguments, Either, Row, any_of
from fhir_sched.search.query import Criterion, ReferenceValue

_HOSTED = ("Appointment", "Schedule", "Slot", "Patient")


def references(criterion: Criterion, binding: References | ReferenceText, row: Row, args: Arguments) -> Either:
    """One of the references, in a column or beyond the columns."""
    if isinstance(binding, ReferenceText):
        return _reference_text(criterion, binding, row, args)
    param = criterion.param
    if not isinstance(param, ReferenceParam):
        return Either(EMPTY)
    wanted = [value for value in criterion.values if isinstance(value, ReferenceValue)]
    columns = any_of(
        _column_match(column, [value for value in wanted if value.type in ("", column.type)], binding, row, args)
        for column in binding.columns
        if not param.targets or column.type in param.targets
    )
    beyond = side.references(criterion, param, f"{binding.entry}+", row, args) if binding.entry else EMPTY
    return Either(columns, beyond)


def _reference_text(criterion: Criterion, binding: ReferenceText, row: Row, args: Arguments) -> Either:
    """The whole reference as text. An id alone may be of any type that the parameter has, or that is served."""
    targets = getattr(criterion.param, "targets", ()) or _HOSTED
    wanted = [value for value in criterion.values if isinstance(value, ReferenceValue)]
    texts = [
        text
        for value in wanted
        for text in (
            [value.url] if value.url else [f"{kind}/{value.id}" for kind in ([value.type] if value.type else targets)]
        )
    ]
    return _either_column((binding.column, binding.also), texts, row, args)


def carried(criterion: Criterion, binding: ReferenceText, row: Row, args: Arguments) -> Either:
    """`:identifier`: the value of an identifier in one of the columns; its system is not kept there."""
    texts = [value.code for value in criterion.tokens if value.code and not value.system]
    return _either_column((*binding.identifiers, "", "")[:2], texts, row, args)


def _either_column(columns: tuple[str, ...], texts: Iterable[str], row: Row, args: Arguments) -> Either:
    found = [args.one_of(f"{row.alias}.{name}", texts, "text") if name else EMPTY for name in columns]
    return Either(found[0], found[1])


def _column_match(
    column: ReferenceColumn, wanted: list[ReferenceValue], binding: References, row: Row, args: Arguments
) -> str:
    uuids = [uuid for value in wanted if (uuid := _uuid(column, value, binding))]
    matching = args.one_of(f"{row.alias}.{column.column}", uuids, "uuid")
    if matching == EMPTY:
        return EMPTY
    if column.word:
        matching += f" and {row.alias}.{binding.type_column} = {args.add(column.word)}"
    if binding.check:
        confirmed = side.listed(binding.entry, row, args, f" and t.system = {args.add(column.type)}")
        plain = f"({row.alias}.fhir -> '{binding.check}') is null"
        shown = column.type in ("Practitioner", "Location", "Device")
        matching += f" and ({plain} or {confirmed})" if shown else f" and {confirmed}"
    return f"({matching})"


def _uuid(column: ReferenceColumn, value: ReferenceValue, binding: References) -> str | None:
    if binding.prefix:
        name, _, text = value.id.partition("-")
        return text if name == binding.prefix and is_uuid(text) else None
    return column_uuid(column, Target(column.type, value.id, value.url))
