"""Migrations: in order, all or nothing, once, and never over something that is not what it seems."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db import Cluster, Database
from fhir_sched.db import migrations
from fhir_sched.db.migrations import MigrationError, migrate

MODEL = migrations.available()[0].text


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Database]:
    with cluster.fresh() as fresh:
        yield fresh


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "001_model.sql").write_text("create table schedules (\n  id uuid primary key\n);", encoding="utf-8")
    (tmp_path / "002_notes.sql").write_text("create table notes (word text);\ninsert into notes values ('100%');")
    return tmp_path


def _tables(database: Database) -> set[str]:
    with database.connect_admin() as connection:
        rows = connection.execute("select relname from pg_class where relnamespace = 'public'::regnamespace")
        return {str(row[0]) for row in rows}


def test_every_file_is_applied_in_order_and_recorded(empty: Database, directory: Path) -> None:
    said: list[str] = []
    assert migrate(empty.admin_url, directory=directory, progress=said.append) == ("001_model.sql", "002_notes.sql")
    assert [line for line in said if line.endswith("…")] == ["001_model.sql …", "002_notes.sql …"]
    with empty.connect_admin() as connection:
        recorded = connection.execute("select version, name, length(checksum) from fhir_sched_migrations order by 1")
        assert recorded.fetchall() == [(1, "model", 64), (2, "notes", 64)]
        assert connection.execute("select word from notes").fetchall() == [("100%",)]


def test_a_current_database_is_left_alone(empty: Database, directory: Path) -> None:
    migrate(empty.admin_url, directory=directory)
    assert migrate(empty.admin_url, directory=directory) == ()
    (directory / "003_more.sql").write_text("create table more (word text)", encoding="utf-8")
    assert migrate(empty.admin_url, directory=directory) == ("003_more.sql",)


def test_a_failure_undoes_every_file_and_names_file_line_and_detail(empty: Database, directory: Path) -> None:
    (directory / "003_guard.sql").write_text(
        "select 1;\n\ndo $$ begin raise exception 'two rows overlap' using\n"
        "detail = E'slots: a and b\\nslots: c and d', hint = 'mend them'; end $$;"
    )
    with pytest.raises(MigrationError) as refusal:
        migrate(empty.admin_url, directory=directory)
    assert str(refusal.value).splitlines() == [
        "003_guard.sql: two rows overlap",
        "  slots: a and b",
        "  slots: c and d",
        "  mend them",
    ]
    assert _tables(empty) == set()
    (directory / "003_guard.sql").write_text("select 1;\nselect wrong;", encoding="utf-8")
    with pytest.raises(MigrationError, match=r'^003_guard.sql:2: column "wrong" does not exist'):
        migrate(empty.admin_url, directory=directory)


def test_a_changed_file_is_refused(empty: Database, directory: Path) -> None:
    migrate(empty.admin_url, directory=directory)
    (directory / "002_notes.sql").write_text("create table notes (words text)", encoding="utf-8")
    with pytest.raises(MigrationError, match=r"002_notes.sql is not what was applied"):
        migrate(empty.admin_url, directory=directory)


def test_a_database_that_is_ahead_is_refused(empty: Database, directory: Path) -> None:
    migrate(empty.admin_url, directory=directory)
    (directory / "002_notes.sql").unlink()
    with pytest.raises(MigrationError, match="the database has migration notes, which this version"):
        migrate(empty.admin_url, directory=directory)


def test_numbers_may_be_left_out_but_not_given_twice(empty: Database, directory: Path) -> None:
    (directory / "004_late.sql").write_text("select 1", encoding="utf-8")
    assert migrate(empty.admin_url, directory=directory)[-1] == "004_late.sql"
    (directory / "004_again.sql").write_text("select 1", encoding="utf-8")
    with pytest.raises(MigrationError, match="each number once"):
        migrate(empty.admin_url, directory=directory)


def test_a_file_that_comes_behind_one_that_was_applied_is_refused(empty: Database, directory: Path) -> None:
    (directory / "004_late.sql").write_text("select 1", encoding="utf-8")
    migrate(empty.admin_url, directory=directory)
    (directory / "003_between.sql").write_text("select 1", encoding="utf-8")
    with pytest.raises(MigrationError, match="the database has migration 4 late where this version has 003_between"):
        migrate(empty.admin_url, directory=directory)


def test_a_file_that_commits_is_refused(empty: Database, directory: Path) -> None:
    (directory / "003_sly.sql").write_text("create table sly (); commit;", encoding="utf-8")
    with pytest.raises(MigrationError, match=r"003_sly.sql ends the transaction"):
        migrate(empty.admin_url, directory=directory)


def test_two_servers_that_start_at_once_migrate_once(empty: Database) -> None:
    ready = threading.Barrier(4)
    applied: list[tuple[str, ...]] = []

    def run() -> None:
        ready.wait()
        applied.append(migrate(empty.admin_url))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations.available())]


def test_grandfathering_reaches_the_files_only_when_asked_for(empty: Database, directory: Path) -> None:
    ask = "create table {} as select current_setting('app.grandfather') as word"
    (directory / "003_ask.sql").write_text(ask.format("first"), encoding="utf-8")
    migrate(empty.admin_url, directory=directory)
    (directory / "004_ask.sql").write_text(ask.format("second"), encoding="utf-8")
    migrate(empty.admin_url, directory=directory, grandfather=True)
    with empty.connect_admin() as connection:
        assert connection.execute("select first.word, second.word from first, second").fetchall() == [("off", "on")]


def test_the_tables_of_another_program_are_taken_over_with_their_rows(empty: Database) -> None:
    with empty.connect_admin() as connection:
        connection.execute(MODEL.encode())
        connection.execute(
            "insert into schedules (tenant_id, actor_id, actor_type) values (gen_random_uuid(), gen_random_uuid(), 'x')"
        )
    said: list[str] = []
    migrate(empty.admin_url, progress=said.append)
    assert said[0] == "001_model.sql: the tables are there already"
    with empty.connect_admin() as connection:
        assert connection.execute("select count(*) from schedules").fetchone() == (1,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("drop table outbox", "table outbox is missing"),
        ("alter table slots drop column start_at", "column slots.start_at (timestamptz) is missing"),
        ("alter table slots alter version type bigint", "column slots.version is bigint, not integer"),
        ("alter table schedules drop column service_types", "column schedules.service_types (text[]) is missing"),
    ],
)
def test_other_tables_of_the_same_names_are_refused(empty: Database, change: str, complaint: str) -> None:
    with empty.connect_admin() as connection:
        connection.execute(MODEL.encode())
        connection.execute(change.encode())
    before = _tables(empty)
    with pytest.raises(MigrationError) as refusal:
        migrate(empty.admin_url)
    assert f"  {complaint}" in str(refusal.value).splitlines()
    assert _tables(empty) == before


def test_the_model_is_read_from_its_own_text() -> None:
    columns = migrations.model_columns(MODEL)
    assert {table for table, _, _ in columns} == set(migrations.MODEL_TABLES)
    assert len(columns) == 66
    assert ("schedules", "service_types", "text[]") in columns


def test_the_password_of_the_serving_role_changes_only_when_one_is_given(database: Database) -> None:
    def stored() -> object:
        with database.connect_admin() as connection:
            return connection.execute("select rolpassword from pg_authid where rolname = 'fhir_sched_app'").fetchone()

    before = stored()
    migrate(database.admin_url)
    assert stored() == before
    migrate(database.admin_url, app_password="another")
    after = stored()
    assert after != before
    assert "SCRAM-SHA-256" in str(after)
    migrate(database.admin_url, app_password="for-tests")


def test_a_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MigrationError) as refusal:
        migrate(f"postgresql://nobody@/none?host={tmp_path}")
    assert str(refusal.value).startswith("cannot reach the database: ")
    assert "\n" not in str(refusal.value)


def test_the_serving_role_can_read_what_was_applied(database: Database) -> None:
    with database.connect_app() as connection:
        assert connection.execute("select count(*) from fhir_sched_migrations").fetchone() == (
            len(migrations.available()),
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from fhir_sched_migrations")
