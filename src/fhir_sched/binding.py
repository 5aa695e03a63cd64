"""How a table answers a search parameter: by which columns, or entries of the side table. R4 3.1.1.4.

Declarations only; `search` reads them. Knows nothing of requests, SQL text or rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Binding:
    """How one source answers a search parameter."""


@dataclass(frozen=True)
class Never(Binding):
    """No row of the source ever has this element."""


@dataclass(frozen=True)
class CodeColumn(Binding):
    """A text column that holds the FHIR code itself."""

    column: str


@dataclass(frozen=True)
class Fixed(Binding):
    """Every row of the source has this code."""

    code: str


@dataclass(frozen=True)
class BooleanColumn(Binding):
    """A boolean column that is never NULL."""

    column: str


@dataclass(frozen=True)
class SideTable(Binding):
    """Only kept elements have it: entries of `search_tokens` under the parameter's name.

    `column` names a text column that may say the element in words, without a code to search for.
    """

    column: str = ""


@dataclass(frozen=True)
class Everyone(Binding):
    """A row without the kept element shows this code; kept ones are in the side table."""

    code: str
    element: str


@dataclass(frozen=True)
class ConceptColumn(Binding):
    """A text column with the first coding's code (of `system` if it is `known`); kept codings in the side table."""

    column: str
    element: str
    system: str
    known: frozenset[str]


@dataclass(frozen=True)
class ReferenceColumn:
    """A uuid column for references of one FHIR type.

    `word`: what the source's type column must say for it. `derived`: the column never holds the id itself, even where
    that is a UUID, but always the stand-in for the whole reference.
    """

    column: str
    type: str
    word: str = ""
    derived: bool = False


@dataclass(frozen=True)
class References(Binding):
    """References in uuid columns, those beyond the columns in the side table under `entry` and a plus sign.

    `check` names the kept element whose side-table entry (under `entry`) must confirm the type, where two types share
    a word of `type_column`. `prefix` is that of the ids of a resource of our own, `others` a uuid[] column with further
    ones.
    """

    columns: tuple[ReferenceColumn, ...]
    entry: str = ""
    type_column: str = ""
    check: str = ""
    prefix: str = ""
    others: str = ""


@dataclass(frozen=True)
class ReferenceText(Binding):
    """A text column that holds the whole reference, `Type/id` or a URL; NULL for none.

    `also` is a second column that may hold it, `identifiers` are those with the identifiers that references carry.
    """

    column: str
    also: str = ""
    identifiers: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstantColumn(Binding):
    """A timestamptz column. `zone`: a date without offset is a day in the schedule's zone (else UTC).

    `nullable`: `column` is then the generated one that sorts a missing time last, as infinity. `rare`: most rows have
    no such time, a plain null.
    """

    column: str
    zone: bool = False
    nullable: bool = False
    rare: bool = False


@dataclass(frozen=True)
class PeriodColumns(Binding):
    """A Period as two timestamptz columns (NULL: open) and a flag that there is one at all."""

    low: str
    high: str
    flag: str


@dataclass(frozen=True)
class IdColumn(Binding):
    """The row's own id."""
