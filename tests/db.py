"""PostgreSQL for tests: one throw-away cluster a run, one migrated template database, a fresh copy for each module.

`FHIR_SCHED_TEST_URL` may name a superuser's URL of another cluster, to prove that an older PostgreSQL works too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from fhir_sched.db import embedded, migrations

URL_VARIABLE = "FHIR_SCHED_TEST_URL"
APP_PASSWORD = "for-tests"
# Nothing here has to survive a power cut; doctor's tests start a cluster of their own.
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


@dataclass(frozen=True)
class Database:
    """One database of the test cluster, and connections to it."""

    admin_url: str
    app_url: str

    def connect_admin(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser, in autocommit."""
        return psycopg.connect(self.admin_url, autocommit=True, **options)

    def connect_app(self, tenant: UUID | str | None = None, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of fhir_sched_app, in autocommit; for the whole session in `tenant` when one is given."""
        connection = psycopg.connect(self.app_url, autocommit=True, **options)
        if tenant is not None:
            connection.execute("select set_config('app.tenant_id', %s, false)", [str(tenant)])
        return connection


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL whose superuser is at `url`."""

    url: str

    def database(self, name: str) -> Database:
        """Where the database `name` is."""
        app_url = _with(self.url, dbname=name, user=migrations.APP_ROLE, password=APP_PASSWORD)
        return Database(_with(self.url, dbname=name), app_url)

    def create(self, template: str | None = None) -> str:
        """Name of a new database: a copy of `template`, or an empty one."""
        name = f"test_{uuid4().hex}"
        copied = sql.SQL("template {} strategy file_copy").format(sql.Identifier(template or "template0"))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} {}").format(sql.Identifier(name), copied))
        return name

    def drop(self, name: str) -> None:
        """End the sessions in the database and drop it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def fresh(self, template: str | None = None) -> Iterator[Database]:
        """A database of its own for the duration of the context."""
        name = self.create(template)
        try:
            yield self.database(name)
        finally:
            self.drop(name)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The cluster of this test run, by `FHIR_SCHED_TEST_URL` or an embedded one in a temporary directory."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield Cluster(given)
        return
    with (
        tempfile.TemporaryDirectory(prefix="fhir-sched-", ignore_cleanup_errors=True) as directory,
        embedded.start(Path(directory), purpose="tests", server_settings=_FAST) as database,
    ):
        yield Cluster(database.url(embedded.OWNER, "postgres"))


def _with(url: str, **changed: str) -> str:
    """The URL as a URL again (libpq URLs are what the settings take), with some parts changed."""
    parts = {**conninfo_to_dict(url), **changed}
    return "postgresql://?" + "&".join(
        f"{name}={quote(str(value), safe='')}" for name, value in parts.items() if value is not None
    )
