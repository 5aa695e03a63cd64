"""What one statement returned, as the bytes of PostgreSQL's text format.

Cells are not converted here: a reader that only copies them into JSON never pays for objects. It knows no types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.types.string import ByteaBinaryLoader

if TYPE_CHECKING:
    from psycopg.abc import Transformer as Reader
    from psycopg.pq.abc import PGresult

_ANY_TYPE = 0


class _Raw:
    """An adaptation context whose only loader hands every cell out as it came."""

    def __init__(self) -> None:
        self.connection: psycopg.Connection[object] | None = None
        self.adapters = AdaptersMap(types=psycopg.adapters.types)
        self.adapters.register_loader(_ANY_TYPE, ByteaBinaryLoader)


_RAW = _Raw()
_readers: dict[int, Reader] = {}


def _reader(columns: int) -> Reader:
    # psycopg's C row loader takes a whole result in one call: 6 us instead of 38 us for 51 rows of 9 columns
    reader = _readers.get(columns)
    if reader is None:
        reader = _readers[columns] = Transformer(_RAW)
        reader.set_loader_types([_ANY_TYPE] * columns, pq.Format.BINARY)
    return reader


class Rows:
    """The rows of one statement; empty for a statement that returns none."""

    __slots__ = ("_result",)

    def __init__(self, result: PGresult) -> None:
        self._result = result

    @property
    def ntuples(self) -> int:
        """How many rows came back."""
        return self._result.ntuples

    @property
    def command_tuples(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE touched, or a SELECT returned."""
        return self._result.command_tuples or 0

    @property
    def command(self) -> bytes:
        """PostgreSQL's command tag, such as `INSERT 0 1`."""
        return self._result.command_status or b""

    def get(self, row: int, column: int) -> bytes | None:
        """One cell, both numbers from 0; None is NULL."""
        return self._result.get_value(row, column)

    def all(self) -> list[tuple[bytes | None, ...]]:
        """Every row; the way to read more than a few cells."""
        result = self._result
        count = result.ntuples
        if not count:
            return []
        reader = _reader(result.nfields)
        reader.set_pgresult(result, set_loaders=False)
        rows = reader.load_rows(0, count, tuple)
        reader.set_pgresult(None, set_loaders=False)
        return rows

    def first(self) -> tuple[bytes | None, ...] | None:
        """The first row, None when there is none."""
        result = self._result
        if not result.ntuples:
            return None
        value = result.get_value
        return tuple([value(0, column) for column in range(result.nfields)])
