"""One condition -> SQL for one source. Pure: no connection, no I/O.

Identifiers come only from the declarations; values only travel as bound arguments. A clause is `Never`, one
predicate, or `Either` of two (a column, or the side table), so that each can run on its own index.
Beneath row-level security only leakproof operators become index conditions: `=`, `<` and the like on plain types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_sched import codec
from fhir_sched.definition import (
    Binding,
    BooleanColumn,
    CodeColumn,
    ConceptColumn,
    Everyone,
    Fixed,
    IdColumn,
    InstantColumn,
    Never,
    PeriodColumns,
    ReferenceColumn,
    ReferenceParam,
    References,
    ReferenceText,
    Resource,
    SideTable,
    Source,
    StringParam,
    TokenParam,
)
from fhir_sched.mapping import BUSINESS_IDENTIFIER, column_uuid
from fhir_sched.reference import Target, is_uuid
from fhir_sched.search import when
from fhir_sched.search.query import Condition, Criterion, DateValue, ReferenceValue, TokenValue, UriValue

EMPTY = "false"
ALL = "true"
_STAFF = r"(^|/)(Practitioner|PractitionerRole|Location|HealthcareService|Device)/[A-Za-z0-9.-]+(/_history/[^/]+)?$"
_HOSTED = ("Appointment", "Schedule", "Slot", "Patient")
LAST = "\U0010ffff"
"""Sorts behind every character that a text may have."""


@dataclass(frozen=True, slots=True)
class Either:
    """Two ways to fulfil a condition; either may be EMPTY."""

    column: str
    side: str = EMPTY

    def joined(self) -> str:
        """Both as one predicate."""
        parts = [part for part in (self.column, self.side) if part != EMPTY]
        return f"({' or '.join(parts)})" if parts else EMPTY


class Arguments:
    """The bound arguments of a statement, in order; `$1` is the tenant."""

    def __init__(self, tenant: str) -> None:
        self.values: list[bytes | None] = [tenant.encode()]

    def add(self, value: str) -> str:
        """The placeholder of a new argument."""
        self.values.append(value.encode())
        return f"${len(self.values)}"

    def one_of(self, expression: str, values: Iterable[str], cast: str) -> str:
        """`expression = $n` or `expression = any($n)`; false for no values."""
        listed = sorted(set(values))
        if not listed:
            return EMPTY
        if len(listed) == 1:
            return f"{expression} = {self.add(listed[0])}::{cast}"
        quoted = ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in listed)
        return f"{expression} = any({self.add('{' + quoted + '}')}::{cast}[])"


@dataclass(frozen=True, slots=True)
class Row:
    """Whose rows a clause is about: a resource, one of its sources, its alias in the statement, its zone."""

    resource: Resource
    source: Source
    alias: str
    zone: when.Zone

    @property
    def position(self) -> int:
        """Which of the resource's sources it is."""
        return self.resource.sources.index(self.source)


def impossible(condition: Condition, position: int) -> bool:
    """Whether no row of the source at that position can fulfil the condition, as far as that is seen at a glance."""
    if not isinstance(condition, Criterion) or condition.modifier:
        return False
    binding = condition.param.bindings[position]
    return isinstance(binding, Never) or (isinstance(binding, Fixed) and binding.code not in _codes(condition))


def clause(criterion: Criterion, row: Row, args: Arguments) -> Either:
    """The condition of one parameter on one source."""
    binding = criterion.param.bindings[row.position]
    if criterion.modifier == "missing":
        return Either(_missing(criterion, binding, row, args))
    if criterion.modifier == "identifier" and isinstance(binding, ReferenceText):
        return _carried(criterion, binding, row, args)
    if criterion.modifier == "identifier":
        return Either(EMPTY, _identified(criterion, binding, row, args))
    if criterion.modifier == "text":
        return Either(EMPTY, _texts(criterion, row, args))
    found = _positive(criterion, binding, row, args)
    return Either(_negated(found.joined())) if criterion.modifier == "not" else found


def _texts(criterion: Criterion, row: Row, args: Arguments) -> str:
    """`:text`: some text of the concept begins so. The side table sorts by bytes, so a beginning is a range."""
    ranges = [
        f"(t.value >= {args.add(value.code)} and t.value < {args.add(value.code + LAST)})"
        for value in _tokens(criterion)
        if value.code
    ]
    return (
        side(f"{row.resource.type}.{criterion.param.name}:text", row, args, f" and {_any(ranges)}") if ranges else EMPTY
    )


def _identified(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> str:
    """`:identifier`: the identifier that a kept reference carries; of one type only where `actor` has several."""
    entry = _entry(criterion, binding, row)
    targets: tuple[str, ...] = getattr(criterion.param, "targets", ())
    one_of_many = entry.endswith(".actor") and len(targets) == 1
    return _side_tokens(f"{entry}:identifier{f':{targets[0]}' if one_of_many else ''}", _tokens(criterion), row, args)


def _negated(predicate: str) -> str:
    if predicate in (EMPTY, ALL):
        return ALL if predicate == EMPTY else EMPTY
    return f"({predicate}) is not true"


def _positive(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> Either:
    match binding:
        case Never():
            return Either(EMPTY)
        case IdColumn():
            return Either(_ids((value.code for value in _tokens(criterion)), row, args))
        case CodeColumn(column):
            return Either(args.one_of(f"{row.alias}.{column}", _codes(criterion), "text"))
        case BooleanColumn(column):
            return Either(args.one_of(f"{row.alias}.{column}", _codes(criterion), "boolean"))
        case Fixed(code):
            return Either(ALL if code in _codes(criterion) else EMPTY)
        case Everyone(code, element):
            plain = f"({row.alias}.fhir -> '{element}') is null" if code in _codes(criterion) else EMPTY
            if criterion.seen_by:
                return Either(_any([plain, _seen(criterion, element, row, args)]))
            return Either(plain, _side_tokens(_entry(criterion, binding, row), _tokens(criterion), row, args))
        case ConceptColumn():
            return _concept(criterion, binding, row, args)
        case InstantColumn() | PeriodColumns():
            return Either(_dates(criterion, binding, row, args))
        case References() | ReferenceText():
            return _references(criterion, binding, row, args)
        case SideTable():
            return _side_table(criterion, row, args)
    raise TypeError(f"no SQL for {binding!r}")


def _dates(criterion: Criterion, binding: InstantColumn | PeriodColumns, row: Row, args: Arguments) -> str:
    dates = [value for value in criterion.values if isinstance(value, DateValue)]
    rare = isinstance(binding, InstantColumn) and binding.rare
    alias = "rare" if rare else row.alias
    found = _any(when.predicate(value, binding, alias, row.zone, args.add) for value in dates)
    if not rare or found == EMPTY:
        return found
    # Looked up first: a plan for any value takes a third of all rows to have one, and walks them in order.
    picked = f"select rare.id from {row.source.table} rare where rare.tenant_id = $1::uuid and {found}"
    return f"{row.alias}.id = any(array({picked}))"


def _any(predicates: Iterable[str]) -> str:
    parts = [part for part in predicates if part != EMPTY]
    if len(parts) < 2:
        return parts[0] if parts else EMPTY
    return f"({' or '.join(parts)})"


def _tokens(criterion: Criterion) -> list[TokenValue]:
    return [value for value in criterion.values if isinstance(value, TokenValue)]


def _codes(criterion: Criterion) -> set[str]:
    """The codes wanted of an element with a bound value set and an implicit system."""
    param = criterion.param
    if isinstance(param, StringParam):
        return _beginning(criterion, param)
    if not isinstance(param, TokenParam):
        return set()
    wanted: set[str] = set()
    for value in _tokens(criterion):
        if value.system in (None, param.system):
            wanted |= param.codes if value.code is None else {value.code} & param.codes
    return wanted


def _beginning(criterion: Criterion, param: StringParam) -> set[str]:
    """The texts that there can be which begin as wanted, or are the same to the letter with `exact`."""
    words = [value.uri for value in criterion.values if isinstance(value, UriValue)]
    if criterion.modifier == "exact":
        return set(param.codes.intersection(words))
    begins = tuple(codec.plain(word) for word in words)
    return {code for code in param.codes if codec.plain(code).startswith(begins)}


def _ids(codes: Iterable[str | None], row: Row, args: Arguments) -> str:
    found = (row.resource.parse_id(code or "") for code in codes)
    return args.one_of(
        f"{row.alias}.id", [uuid for source, uuid in filter(None, found) if source is row.source], "uuid"
    )


def _entry(criterion: Criterion, binding: Binding, row: Row) -> str:
    if isinstance(binding, References) and binding.entry:
        return binding.entry
    return f"{row.resource.type}.{criterion.param.name}"


def _seen(criterion: Criterion, element: str, row: Row, args: Arguments) -> str:
    """Somebody of whom the patients may know has one of the codes; the side table does not say whose code it is."""
    status = args.one_of("p ->> 'status'", _codes(criterion), "text")
    if status == EMPTY:
        return EMPTY
    actor = "p #>> '{actor,reference}'"
    own = {name for name in criterion.seen_by if is_uuid(name.rpartition("/")[2])}
    people = [
        args.one_of(actor, set(criterion.seen_by) - own, "text"),
        args.one_of(f"lower({actor})", {name.lower() for name in own}, "text"),
        f"{actor} ~ {args.add(_STAFF)}",
    ]
    listed = f"jsonb_path_query({row.alias}.fhir, 'lax $.{element}[*]') p"
    return f"exists (select from {listed} where {status} and {_any(people)})"


# The side table


def side(entry: str, row: Row, args: Arguments, condition: str = "") -> str:
    """`exists` an entry of the row under that parameter."""
    return (
        f"exists (select from search_tokens t where t.tenant_id = $1::uuid and t.parameter = {args.add(entry)}"
        f"{condition} and t.id = {row.alias}.id and t.kind = '{row.source.kind}')"
    )


def _side_tokens(entry: str, wanted: list[TokenValue], row: Row, args: Arguments) -> str:
    if not wanted:
        return EMPTY
    if all(value.system is None for value in wanted):
        matching = args.one_of("t.value", [value.code or "" for value in wanted], "text")
    else:
        matching = _any(_token_match(value, args) for value in wanted)
    return side(entry, row, args, f" and {matching}")


def _token_match(value: TokenValue, args: Arguments) -> str:
    parts = [f"t.value = {args.add(value.code)}"] if value.code is not None else []
    parts += [f"t.system = {args.add(value.system)}"] if value.system is not None else []
    return f"({' and '.join(parts)})"


def _side_table(criterion: Criterion, row: Row, args: Arguments) -> Either:
    entry = f"{row.resource.type}.{criterion.param.name}"
    if isinstance(criterion.param, ReferenceParam):
        return Either(EMPTY, _side_references(criterion, criterion.param, entry, row, args))
    uris = [value.uri for value in criterion.values if isinstance(value, UriValue)]
    if uris:
        return Either(EMPTY, side(entry, row, args, f" and {args.one_of('t.value', uris, 'text')}"))
    wanted = _tokens(criterion)
    own = EMPTY
    if isinstance(criterion.param, TokenParam) and criterion.param.kind == "identifier":
        ours = (value.code for value in wanted if value.system in (None, BUSINESS_IDENTIFIER))
        own = _ids(((code or "").replace("_", "-", 1) for code in ours), row, args)
        if any(value == TokenValue(BUSINESS_IDENTIFIER, None) for value in wanted):
            own = ALL
    return Either(own, _side_tokens(entry, wanted, row, args))


def _concept(criterion: Criterion, binding: ConceptColumn, row: Row, args: Arguments) -> Either:
    """A code without system is in the column; with one, only where the column's word implies that system."""
    column = f"{row.alias}.{binding.column}"
    wanted = _tokens(criterion)
    plain = args.one_of(column, [value.code or "" for value in wanted if value.system is None], "text")
    exact = [_implied(value, binding, column, args) for value in wanted if value.system is not None]
    bare = f"({row.alias}.fhir -> '{binding.element}') is null"
    implied = _any(exact)
    by_system = EMPTY if implied == EMPTY else f"({implied} and {bare})"
    entry = f"{row.resource.type}.{criterion.param.name}"
    return Either(_any([plain, by_system]), _side_tokens(entry, wanted, row, args))


def _implied(value: TokenValue, binding: ConceptColumn, column: str, args: Arguments) -> str:
    if value.system == binding.system:
        codes = binding.known if value.code is None else {value.code} & binding.known
        return args.one_of(column, codes, "text")
    if value.system == "" and value.code not in binding.known:
        return args.one_of(column, [value.code or ""], "text")
    return EMPTY


# References


def _references(criterion: Criterion, binding: References | ReferenceText, row: Row, args: Arguments) -> Either:
    if isinstance(binding, ReferenceText):
        return _reference_text(criterion, binding, row, args)
    param = criterion.param
    if not isinstance(param, ReferenceParam):
        return Either(EMPTY)
    wanted = [value for value in criterion.values if isinstance(value, ReferenceValue)]
    columns = _any(
        _column_match(column, [value for value in wanted if value.type in ("", column.type)], binding, row, args)
        for column in binding.columns
        if not param.targets or column.type in param.targets
    )
    beyond = _side_references(criterion, param, f"{binding.entry}+", row, args) if binding.entry else EMPTY
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


def _carried(criterion: Criterion, binding: ReferenceText, row: Row, args: Arguments) -> Either:
    """`:identifier`: the value of an identifier in one of the columns; its system is not kept there."""
    texts = [value.code for value in _tokens(criterion) if value.code and not value.system]
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
        confirmed = side(binding.entry, row, args, f" and t.system = {args.add(column.type)}")
        plain = f"({row.alias}.fhir -> '{binding.check}') is null"
        shown = column.type in ("Practitioner", "Location", "Device")
        matching += f" and ({plain} or {confirmed})" if shown else f" and {confirmed}"
    return f"({matching})"


def _uuid(column: ReferenceColumn, value: ReferenceValue, binding: References) -> str | None:
    if binding.prefix:
        name, _, text = value.id.partition("-")
        return text if name == binding.prefix and is_uuid(text) else None
    return column_uuid(column, Target(column.type, value.id, value.url))


def _side_references(criterion: Criterion, param: ReferenceParam, entry: str, row: Row, args: Arguments) -> str:
    parts = []
    for value in criterion.values:
        if not isinstance(value, ReferenceValue) or (value.type and param.targets and value.type not in param.targets):
            continue
        types = [value.type] if value.type else ([] if value.url else list(param.targets))
        match = f"t.value = {args.add(value.url or value.id)}"
        parts.append(f"({match} and {args.one_of('t.system', types, 'text')})" if types else match)
    return side(entry, row, args, f" and {_any(parts)}") if parts else EMPTY


# :missing


def _missing(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> str:
    absent = _absent(criterion, binding, row, args)
    return absent if criterion.missing else _negated(absent)


def _absent(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> str:
    match binding:
        case Never():
            return ALL
        case ReferenceText(column, also):
            return " and ".join(f"{row.alias}.{name} is null" for name in (column, also) if name)
        case InstantColumn(column, nullable=True):
            return f"{row.alias}.{column} = 'infinity'::timestamptz"
        case InstantColumn(column, rare=True):
            return f"{row.alias}.{column} is null"
        case PeriodColumns():
            return f"not {row.alias}.{binding.flag}"
        case ConceptColumn(column):
            entry = f"{row.resource.type}.{criterion.param.name}"
            bare = f"({row.alias}.fhir -> '{binding.element}') is null"
            empty = f"({row.alias}.{column} is null or {row.alias}.{column} = '')"
            return f"{empty} and ({bare} or not {side(entry, row, args)})"
        case References(columns, entry):
            targets = getattr(criterion.param, "targets", ())
            names = dict.fromkeys(column.column for column in columns)
            parts = [f"{row.alias}.{name} is null" for name in names]
            if entry:
                types = args.one_of("t.system", targets, "text")
                parts.append(f"not {side(entry + '+', row, args, f' and {types}')}")
            return " and ".join(parts) or ALL
        case SideTable(column) if not (
            isinstance(criterion.param, TokenParam) and criterion.param.kind == "identifier"
        ):
            entry = f"{row.resource.type}.{criterion.param.name}"
            parts = [f"coalesce({row.alias}.{column}, '') = ''"] if column else []
            parts.append(f"not {side(entry, row, args)}")
            if isinstance(criterion.param, ReferenceParam):
                parts.append(f"not {side(f'{entry}:identifier', row, args)}")
            return " and ".join(parts)
    return EMPTY
