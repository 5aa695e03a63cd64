"""One condition -> SQL for one source. Pure: no connection, no I/O.

Identifiers come only from the declarations; values only travel as bound arguments.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_sched import codec
from fhir_sched.binding import (
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
    References,
    ReferenceText,
    SideTable,
)
from fhir_sched.definition import ReferenceParam, StringParam, TokenParam
from fhir_sched.reference import is_uuid
from fhir_sched.rendering import BUSINESS_IDENTIFIER
from fhir_sched.search import side, when
from fhir_sched.search.predicate import ALL, EMPTY, Arguments, Either, Row, any_of, negated
from fhir_sched.search.query import Condition, Criterion, DateValue, TokenValue, UriValue
from fhir_sched.search.references import carried, references

_STAFF = r"(^|/)(Practitioner|PractitionerRole|Location|HealthcareService|Device)/[A-Za-z0-9.-]+(/_history/[^/]+)?$"


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
        return carried(criterion, binding, row, args)
    if criterion.modifier == "identifier":
        return Either(EMPTY, side.identified(criterion, binding, row, args))
    if criterion.modifier == "text":
        return Either(EMPTY, side.texts(criterion, row, args))
    found = _positive(criterion, binding, row, args)
    return Either(negated(found.joined())) if criterion.modifier == "not" else found


def _positive(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> Either:
    match binding:
        case Never():
            return Either(EMPTY)
        case IdColumn():
            return Either(_ids((value.code for value in criterion.tokens), row, args))
        case CodeColumn(column):
            return Either(args.one_of(f"{row.alias}.{column}", _codes(criterion), "text"))
        case BooleanColumn(column):
            return Either(args.one_of(f"{row.alias}.{column}", _codes(criterion), "boolean"))
        case Fixed(code):
            return Either(ALL if code in _codes(criterion) else EMPTY)
        case Everyone(code, element):
            plain = f"({row.alias}.fhir -> '{element}') is null" if code in _codes(criterion) else EMPTY
            if criterion.seen_by:
                return Either(any_of([plain, _seen(criterion, element, row, args)]))
            return Either(plain, side.tokens(side.entry_of(criterion, binding, row), criterion.tokens, row, args))
        case ConceptColumn():
            return _concept(criterion, binding, row, args)
        case InstantColumn() | PeriodColumns():
            return Either(_dates(criterion, binding, row, args))
        case References() | ReferenceText():
            return references(criterion, binding, row, args)
        case SideTable():
            return _side_table(criterion, row, args)
    raise TypeError(f"no SQL for {binding!r}")


def _dates(criterion: Criterion, binding: InstantColumn | PeriodColumns, row: Row, args: Arguments) -> str:
    dates = [value for value in criterion.values if isinstance(value, DateValue)]
    rare = isinstance(binding, InstantColumn) and binding.rare
    alias = "rare" if rare else row.alias
    found = any_of(when.predicate(value, binding, alias, row.zone, args.add) for value in dates)
    if not rare or found == EMPTY:
        return found
    # Looked up first: a plan for any value takes a third of all rows to have one, and walks them in order.
    picked = f"select rare.id from {row.source.table} rare where rare.tenant_id = $1::uuid and {found}"
    return f"{row.alias}.id = any(array({picked}))"


def _codes(criterion: Criterion) -> set[str]:
    """The codes wanted of an element with a bound value set and an implicit system."""
    param = criterion.param
    if isinstance(param, StringParam):
        return _beginning(criterion, param)
    if not isinstance(param, TokenParam):
        return set()
    wanted: set[str] = set()
    for value in criterion.tokens:
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
    return f"exists (select from {listed} where {status} and {any_of(people)})"


def _side_table(criterion: Criterion, row: Row, args: Arguments) -> Either:
    entry = f"{row.resource.type}.{criterion.param.name}"
    if isinstance(criterion.param, ReferenceParam):
        return Either(EMPTY, side.references(criterion, criterion.param, entry, row, args))
    uris = [value.uri for value in criterion.values if isinstance(value, UriValue)]
    if uris:
        return Either(EMPTY, side.listed(entry, row, args, f" and {args.one_of('t.value', uris, 'text')}"))
    wanted = criterion.tokens
    own = EMPTY
    if isinstance(criterion.param, TokenParam) and criterion.param.kind == "identifier":
        ours = (value.code for value in wanted if value.system in (None, BUSINESS_IDENTIFIER))
        own = _ids(((code or "").replace("_", "-", 1) for code in ours), row, args)
        if any(value == TokenValue(BUSINESS_IDENTIFIER, None) for value in wanted):
            own = ALL
    return Either(own, side.tokens(entry, wanted, row, args))


def _concept(criterion: Criterion, binding: ConceptColumn, row: Row, args: Arguments) -> Either:
    """A code without system is in the column; with one, only where the column's word implies that system."""
    column = f"{row.alias}.{binding.column}"
    wanted = criterion.tokens
    plain = args.one_of(column, [value.code or "" for value in wanted if value.system is None], "text")
    exact = [_implied(value, binding, column, args) for value in wanted if value.system is not None]
    bare = f"({row.alias}.fhir -> '{binding.element}') is null"
    implied = any_of(exact)
    by_system = EMPTY if implied == EMPTY else f"({implied} and {bare})"
    entry = f"{row.resource.type}.{criterion.param.name}"
    return Either(any_of([plain, by_system]), side.tokens(entry, wanted, row, args))


def _implied(value: TokenValue, binding: ConceptColumn, column: str, args: Arguments) -> str:
    if value.system == binding.system:
        codes = binding.known if value.code is None else {value.code} & binding.known
        return args.one_of(column, codes, "text")
    if value.system == "" and value.code not in binding.known:
        return args.one_of(column, [value.code or ""], "text")
    return EMPTY


# :missing


def _missing(criterion: Criterion, binding: Binding, row: Row, args: Arguments) -> str:
    absent = _absent(criterion, binding, row, args)
    return absent if criterion.missing else negated(absent)


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
            return f"{empty} and ({bare} or not {side.listed(entry, row, args)})"
        case References(columns, entry):
            targets = getattr(criterion.param, "targets", ())
            names = dict.fromkeys(column.column for column in columns)
            parts = [f"{row.alias}.{name} is null" for name in names]
            if entry:
                types = args.one_of("t.system", targets, "text")
                parts.append(f"not {side.listed(entry + '+', row, args, f' and {types}')}")
            return " and ".join(parts) or ALL
        case SideTable(column) if not (
            isinstance(criterion.param, TokenParam) and criterion.param.kind == "identifier"
        ):
            entry = f"{row.resource.type}.{criterion.param.name}"
            parts = [f"coalesce({row.alias}.{column}, '') = ''"] if column else []
            parts.append(f"not {side.listed(entry, row, args)}")
            if isinstance(criterion.param, ReferenceParam):
                parts.append(f"not {side.listed(f'{entry}:identifier', row, args)}")
            return " and ".join(parts)
    return EMPTY
