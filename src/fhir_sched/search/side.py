"""Clauses on `search_tokens`, the side table of what has no column to be searched by. Pure: no connection, no I/O.

An entry is a parameter with a system and a value (docs/adr/0010);
`:text` and `:identifier` are parameters of their own.
"""

from __future__ import annotations

from fhir_sched.binding import Binding, References
from fhir_sched.definition import ReferenceParam
from fhir_sched.search.predicate import EMPTY, Arguments, Row, any_of
from fhir_sched.search.query import Criterion, ReferenceValue, TokenValue

_LAST = "\U0010ffff"
"""Sorts behind every character that a text may have."""


def listed(entry: str, row: Row, args: Arguments, condition: str = "") -> str:
    """`exists` an entry of the row under that parameter."""
    return (
        f"exists (select from search_tokens t where t.tenant_id = $1::uuid and t.parameter = {args.add(entry)}"
        f"{condition} and t.id = {row.alias}.id and t.kind = '{row.source.kind}')"
    )


def entry_of(criterion: Criterion, binding: Binding, row: Row) -> str:
    """The parameter under which the side table has what a criterion looks for."""
    if isinstance(binding, References) and binding.entry:
        return binding.entry
    return f"{row.resource.type}.{criterion.param.name}"


def tokens(entry: str, wanted: list[TokenValue], row: Row, args: Arguments) -> str:
    """An entry has one of the codes, identifiers or texts."""
    if not wanted:
        return EMPTY
    if all(value.system is None for value in wanted):
        matching = args.one_of("t.value", [value.code or "" for value in wanted], "text")
    else:
        matching = any_of(_token_match(value, args) for value in wanted)
    return listed(entry, row, args, f" and {matching}")


def _token_match(value: TokenValue, args: Arguments) -> str:
    parts = [f"t.value = {args.add(value.code)}"] if value.code is not None else []
    parts += [f"t.system = {args.add(value.system)}"] if value.system is not None else []
    return f"({' and '.join(parts)})"


def texts(criterion: Criterion, row: Row, args: Arguments) -> str:
    """`:text`: some text of the concept begins so. The side table sorts by bytes, so a beginning is a range."""
    ranges = [
        f"(t.value >= {args.add(value.code)} and t.value < {args.add(value.code + _LAST)})"
        for value in criterion.tokens
        if value.code
    ]
    entry = f"{row.resource.type}.{criterion.param.name}:text"
    return listed(entry, row, args, f" and {any_of(ranges)}") if ranges else EMPTY


def identified(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> str:
    """`:identifier`: the identifier that a kept reference carries; of one type only where `actor` has several."""
    entry = entry_of(criterion, binding, row)
    targets: tuple[str, ...] = getattr(criterion.param, "targets", ())
    one_of_many = entry.endswith(".actor") and len(targets) == 1
    return tokens(f"{entry}:identifier{f':{targets[0]}' if one_of_many else ''}", criterion.tokens, row, args)


def references(criterion: Criterion, param: ReferenceParam, entry: str, row: Row, args: Arguments) -> str:
    """An entry has one of the references, each by type and id or as a URL.

    Those of one type are compared with one list, so that the text does not grow with their number.
    """
    wanted: dict[tuple[str, ...], list[str]] = {}
    for value in criterion.values:
        if not isinstance(value, ReferenceValue) or (value.type and param.targets and value.type not in param.targets):
            continue
        types = [value.type] if value.type else ([] if value.url else list(param.targets))
        wanted.setdefault(tuple(types), []).append(value.url or value.id)
    parts = []
    for types_of, names in wanted.items():
        match = args.one_of("t.value", names, "text")
        parts.append(f"({match} and {args.one_of('t.system', types_of, 'text')})" if types_of else match)
    return listed(entry, row, args, f" and {any_of(parts)}") if parts else EMPTY
