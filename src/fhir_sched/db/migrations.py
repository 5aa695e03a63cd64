"""Brings a database up to `sql/NNN_name.sql`: every file that is not there yet, in order, in one transaction.

Law: all or nothing under an advisory lock, so that two servers that start at once migrate once; each applied file is
recorded with its checksum in `fhir_sched_migrations`, and a file that changed afterwards is refused. 001 is the data
model itself: where another program has made its tables already it is recorded and not run. Knows nothing of what the
files do.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from fhir_sched import assets

APP_ROLE: Final = "fhir_sched_app"
MODEL_TABLES: Final = ("schedules", "schedule_exceptions", "slots", "appointments", "waitlist_entries", "outbox")
# Any number does, as long as nobody else locks it: the first bytes of "fhirsched".
_LOCK: Final = 0x66686972736368
_FILE_NAME: Final = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_CREATE_TABLE: Final = re.compile(r"create table (?:public\.)?(\w+)\s*\((.*?)\n\);", re.IGNORECASE | re.DOTALL)
_COLUMN: Final = re.compile(r"\s*(\w+)\s+(\w+(?:\[\])?)")


class MigrationError(Exception):
    """Why the database was left as it was; further lines carry the details, one offending row a line."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: number, name and text. The checksum is over the text with Unix line ends."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """As it lies in `sql/`."""
        return f"{self.version:03}_{self.name}.sql"


def available(directory: Path | None = None) -> tuple[Migration, ...]:
    """The migrations of `directory` (that of this installation by default) in order; other files are not looked at."""
    files = sorted((directory or assets.directory("sql")).iterdir())
    found = [
        Migration(int(match[1]), match[2], path.read_text(encoding="utf-8"))
        for path in files
        if (match := _FILE_NAME.fullmatch(path.name))
    ]
    numbers = [migration.version for migration in found]
    if numbers[:1] != [1] or len(set(numbers)) != len(numbers):
        names = ", ".join(migration.file_name for migration in found)
        raise MigrationError(f"the migrations are not numbered from 001, each number once: {names or 'none found'}")
    return tuple(found)


def migrate(
    url: str,
    *,
    directory: Path | None = None,
    grandfather: bool = False,
    app_password: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Apply what is missing; the names of the files that were applied, empty when the database was current.

    `grandfather` lets rows that break a new constraint stay as they are. `app_password` becomes the password of
    fhir_sched_app; without it the role's password is left alone. Raises MigrationError, and then nothing has changed.
    """
    migrations = available(directory)
    try:
        with psycopg.connect(url, prepare_threshold=None, application_name="fhir-sched migrate") as connection:
            connection.add_notice_handler(lambda notice: _tell(notice, progress))
            _lock(connection, progress)
            recorded = _recorded(connection)
            _compare(migrations, recorded)
            missing = migrations[len(recorded) :]
            if missing:
                connection.execute("select set_config('app.grandfather', %s, true)", ["on" if grandfather else "off"])
            for migration in missing:
                _apply(connection, migration, progress)
            _finish(connection, app_password)
    except psycopg.OperationalError as error:
        raise MigrationError(f"cannot reach the database: {_one_line(error)}") from None
    except psycopg.Error as error:
        raise MigrationError(_told(error)) from None
    return tuple(migration.file_name for migration in missing)


def shortfall(migrations: Sequence[Migration], recorded: Sequence[tuple[int, str, str]]) -> str | None:
    """What is wrong with a database that has `recorded` (version, name, checksum) applied; None when it is current."""
    try:
        _compare(migrations, recorded)
    except MigrationError as error:
        return str(error)
    missing = migrations[len(recorded) :]
    return f"not applied yet: {', '.join(migration.file_name for migration in missing)}" if missing else None


def _lock(connection: psycopg.Connection, progress: Callable[[str], None]) -> None:
    row = connection.execute("select pg_try_advisory_xact_lock(%s)", [_LOCK]).fetchone()
    if row is None or not row[0]:
        progress("waiting for another migration of this database")
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
    # Building indexes on a clinic's data takes its time; waiting behind a forgotten session does not help anybody,
    # and everyone else queues behind us meanwhile.
    connection.execute(
        "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;"
        "set local lock_timeout = '60s'; set local search_path = public; set local client_min_messages = notice"
    )


def _recorded(connection: psycopg.Connection) -> list[tuple[int, str, str]]:
    connection.execute(
        """
        create table if not exists public.fhir_sched_migrations (
            version integer primary key,
            name text not null,
            checksum text not null,
            applied_at timestamptz not null default now()
        )
        """
    )
    cursor = connection.execute("select version, name, checksum from public.fhir_sched_migrations order by version")
    return [(int(version), str(name), str(checksum)) for version, name, checksum in cursor]


def _compare(migrations: Sequence[Migration], recorded: Sequence[tuple[int, str, str]]) -> None:
    if len(recorded) > len(migrations):
        raise MigrationError(
            f"the database has migration {recorded[len(migrations)][1]}, which this version of fhir-sched does not "
            "know: install the version that made it, or a newer one"
        )
    for migration, (version, name, checksum) in zip(migrations, recorded, strict=False):
        if (version, name) != (migration.version, migration.name):
            raise MigrationError(
                f"the database has migration {version} {name} where this version has {migration.file_name}"
            )
        if checksum != migration.checksum:
            raise MigrationError(
                f"{migration.file_name} is not what was applied to this database (its checksum differs): "
                "restore the file and put the change into a new migration"
            )


def _apply(connection: psycopg.Connection, migration: Migration, progress: Callable[[str], None]) -> None:
    started = time.monotonic()
    if migration.version == 1 and _model_is_there(connection, migration):
        progress(f"{migration.file_name}: the tables are there already")
    else:
        progress(f"{migration.file_name} …")
        try:
            connection.execute(migration.text.encode())
        except psycopg.Error as error:
            raise MigrationError(f"{migration.file_name}{_line(error, migration.text)}: {_told(error)}") from None
        if connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise MigrationError(f"{migration.file_name} ends the transaction, which no migration may")
        progress(f"{migration.file_name} {time.monotonic() - started:.2f} s")
    connection.execute(
        "insert into public.fhir_sched_migrations (version, name, checksum) values (%s, %s, %s)",
        [migration.version, migration.name, migration.checksum],
    )


def _model_is_there(connection: psycopg.Connection, model: Migration) -> bool:
    """Whether all six tables exist; MigrationError when only some do, or a column is missing or of another type."""
    found = {
        str(name)
        for (name,) in connection.execute(
            "select table_name from information_schema.tables where table_schema = 'public' and table_name = any(%s)",
            [list(MODEL_TABLES)],
        )
    }
    if not found:
        return False
    wrong = [f"table {name} is missing" for name in MODEL_TABLES if name not in found]
    for table, column, kind in model_columns(model.text):
        if table not in found:
            continue
        row = connection.execute(
            """
            select atttypid = to_regtype(%s), format_type(atttypid, atttypmod)
            from pg_attribute
            where attrelid = to_regclass(%s) and attname = %s and attnum > 0 and not attisdropped
            """,
            [kind, f"public.{table}", column],
        ).fetchone()
        if row is None:
            wrong.append(f"column {table}.{column} ({kind}) is missing")
        elif not row[0]:
            wrong.append(f"column {table}.{column} is {row[1]}, not {kind}")
    if wrong:
        raise MigrationError("\n  ".join(["the tables here are not those of the scheduling model:", *wrong]))
    return True


def model_columns(text: str) -> list[tuple[str, str, str]]:
    """(table, column, type) of each column that the `create table` statements of `text` declare.

    >>> model_columns("create table slots (\\n  id uuid primary key,\\n  start_at timestamptz not null\\n);")
    [('slots', 'id', 'uuid'), ('slots', 'start_at', 'timestamptz')]
    """
    return [
        (str(table).lower(), match[1].lower(), match[2].lower())
        for table, body in _CREATE_TABLE.findall(text)
        for line in body.splitlines()
        if (match := _COLUMN.match(line))
    ]


def _finish(connection: psycopg.Connection, app_password: str | None) -> None:
    """What has no place in a file: the role that serves must see what was applied, and may need a password."""
    if connection.execute("select from pg_roles where rolname = %s", [APP_ROLE]).fetchone() is None:
        return
    role = sql.Identifier(APP_ROLE)
    connection.execute(sql.SQL("grant select on public.fhir_sched_migrations to {}").format(role))
    if app_password is not None:
        # Hashed here, so that the password reaches neither the server's log nor its statistics.
        hashed = connection.pgconn.encrypt_password(app_password.encode(), APP_ROLE.encode(), b"scram-sha-256")
        connection.execute(sql.SQL("alter role {} password {}").format(role, sql.Literal(hashed.decode())))


def _tell(notice: psycopg.errors.Diagnostic, progress: Callable[[str], None]) -> None:
    # What a migration says itself by RAISE, and no "already exists, skipping".
    if notice.source_function == "exec_stmt_raise" and notice.message_primary:
        progress(f"  {notice.message_primary}")


def _told(error: psycopg.Error) -> str:
    diagnostic = error.diag
    lines = [diagnostic.message_primary or _one_line(error)]
    lines += [f"  {line}" for line in (diagnostic.message_detail or "").splitlines()]
    if diagnostic.message_hint:
        lines.append(f"  {diagnostic.message_hint}")
    return "\n".join(lines)


def _line(error: psycopg.Error, text: str) -> str:
    position = error.diag.statement_position
    return f":{text.count(chr(10), 0, int(position)) + 1}" if position else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
