"""The doctor: each thing that can be wrong with a database is found, and said with what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db import Cluster, Database
from fhir_sched.db import doctor, embedded, migrations


@pytest.fixture
def copy(cluster: Cluster, template: str) -> Iterator[Database]:
    with cluster.fresh(template) as fresh:
        yield fresh


def _problems(url: str) -> list[str]:
    """The findings but for the durability that the test cluster does without."""
    return [str(finding) for finding in doctor.check(url) if "can be lost" not in finding.problem]


def test_a_migrated_database_is_well(database: Database) -> None:
    assert _problems(database.app_url) == []


def test_a_durable_server_with_the_migrations_is_well_and_ready(tmp_path: Path) -> None:
    with embedded.start(tmp_path / "data") as server:
        migrations.migrate(server.admin_url)
        assert doctor.check(server.app_url) == []
        with psycopg.connect(server.app_url) as connection:
            assert doctor.ready(connection) == []


def test_an_undurable_server_is_found_and_not_ready(database: Database) -> None:
    with psycopg.connect(database.app_url, options="-c synchronous_commit=off") as connection:
        assert "synchronous_commit is off" in doctor.ready(connection)
        assert "synchronous_commit is off, so what was confirmed can be lost" in [
            finding.problem for finding in doctor.findings(connection)
        ]


def test_an_empty_database_is_found_and_not_ready(cluster: Cluster, template: str) -> None:
    assert template
    with cluster.fresh() as empty:
        assert "no migration has been applied to this database" in [
            finding.problem for finding in doctor.check(empty.app_url)
        ]
        with empty.connect_app() as connection:
            assert doctor.ready(connection) == ["the migrations are not current"]


def test_a_database_that_cannot_be_reached_is_one_finding(tmp_path: Path) -> None:
    found = doctor.check(f"postgresql://nobody@/none?host={tmp_path}")
    assert [finding.problem.split(":")[0] for finding in found] == ["the database cannot be reached"]


def test_the_superuser_is_refused(database: Database) -> None:
    assert any("is a superuser" in line and "fhir_sched_app" in line for line in _problems(database.admin_url))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("alter table slots disable row level security", "slots has no row-level security"),
        ("alter table slots no force row level security", "slots does not force it on its owner"),
        ("drop policy slots_tenant_isolation on slots; drop policy slots_trigger on slots", "slots has no policy"),
        ("create table extra (tenant_id uuid)", "extra has no row-level security"),
        (
            "create view every_slot as select * from slots; grant select on every_slot to fhir_sched_app",
            "the view every_slot shows every tenant's rows",
        ),
        ("drop index ix_slots_schedule_status", "the index ix_slots_schedule_status is missing"),
        ("revoke delete on slots from fhir_sched_app", "the role may not delete in slots"),
        ("delete from fhir_sched_migrations where version > 1", "the migrations are not current"),
        ("update fhir_sched_migrations set checksum = '' where version = 1", "the migrations are not current"),
        ("revoke select on fhir_sched_migrations from fhir_sched_app", "the role may not read fhir_sched_migrations"),
    ],
)
def test_what_was_broken_is_found(copy: Database, change: str, problem: str) -> None:
    with copy.connect_admin() as connection:
        connection.execute(change.encode())
    found = _problems(copy.app_url)
    assert any(line.startswith(problem) for line in found), found


@pytest.mark.parametrize(
    ("attributes", "problem"), [("bypassrls", "has BYPASSRLS"), ("in role probe_owner", "owns slots")]
)
def test_a_role_that_row_level_security_does_not_bind_is_refused(copy: Database, attributes: str, problem: str) -> None:
    with copy.connect_admin() as connection:
        connection.execute("create role probe_owner")
        connection.execute(f"create role probe login password 'for-tests' {attributes}".encode())
        connection.execute("alter table slots owner to probe_owner")
        try:
            found = _problems(copy.app_url.replace("fhir_sched_app", "probe"))
        finally:
            connection.execute("alter table slots owner to current_user")
            connection.execute("drop role probe; drop role probe_owner")
    assert any(problem in line for line in found), found


def test_an_index_that_a_later_file_drops_is_not_asked_for() -> None:
    files = (
        migrations.Migration(1, "one", "create unique index if not exists a on t (x);\n-- create index c on t (x);"),
        migrations.Migration(2, "two", "CREATE INDEX b ON t (x);\ndrop index if exists a;"),
    )
    assert doctor.declared_indexes(files) == {"b": files[1]}
