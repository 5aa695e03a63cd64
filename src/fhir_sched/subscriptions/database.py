"""Statements on a connection of the relay, with what they return as bytes, like those of a request.

Knows no table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import psycopg

from fhir_sched.db.fragment import Fragment, text_args
from fhir_sched.db.rows import Rows
from fhir_sched.events.session import Connection

Row = tuple[bytes | None, ...]
Ask = Callable[[Fragment], Awaitable[Sequence[Row]]]
"""Runs one statement under a tenant, in whatever transaction it belongs to."""


def asking(connection: Connection) -> Ask:
    """Statements on that connection, in its open transaction."""

    async def ask(fragment: Fragment) -> Sequence[Row]:
        cursor = psycopg.AsyncRawCursor(connection)
        values = [None if value is None else value.decode() for value in fragment.args]
        await cursor.execute(fragment.text.encode(), values, prepare=True)
        result = cursor.pgresult
        return [] if result is None else Rows(result).all()

    return ask


def statement(text: str, *values: str | None) -> Fragment:
    """A statement with `$1`.. placeholders and its arguments as PostgreSQL writes them."""
    return Fragment(text, text_args(*values))


def array(values: Iterable[str]) -> str:
    """An array literal of words without quotes: UUIDs, numbers, instants, names of ours."""
    return "{" + ",".join(values) + "}"


def text(cell: bytes | None) -> str:
    """A cell as text, empty for NULL."""
    return (cell or b"").decode()
