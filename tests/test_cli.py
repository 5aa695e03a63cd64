"""The command line: what each command says, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from db import Cluster, Database
from fhir_sched import __version__
from fhir_sched.cli import main
from fhir_sched.settings import PREFIX, Settings

PROGRAM = Path(sys.executable).with_name("fhir-sched")


def run(*arguments: str, **environment: str) -> Result:
    """The command in this process, with nothing of ours in the environment but what is given."""
    bare: dict[str, str | None] = {name: None for name in os.environ if name.startswith(PREFIX)}
    given = {PREFIX + name.upper(): value for name, value in environment.items()}
    return CliRunner().invoke(main, arguments, env={**bare, **given}, catch_exceptions=False)


def test_the_program_is_installed_and_tells_its_version() -> None:
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fhir-sched, version {__version__}\n"


def test_help_explains_each_command() -> None:
    shown = run("--help").output
    for command in main.commands.values():
        assert f"  {command.name} " in shown
        assert (command.get_short_help_str() or "").startswith(shown.split(f"  {command.name} ")[1].strip()[:20])


def test_serve_has_a_flag_for_every_setting() -> None:
    shown = run("serve", "--help").output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in shown
        assert f"({PREFIX}{name.upper()})" in shown


@pytest.mark.parametrize("command", ["serve", "migrate", "demo", "check"])
def test_a_wrong_setting_is_one_line_and_code_2(command: str) -> None:
    done = run(command, port="eighty")
    assert done.exit_code == 2
    assert done.stderr.startswith("fhir-sched: FHIR_SCHED_PORT: ")
    assert done.stderr.count("\n") == 1


def test_serve_with_smart_says_what_to_do() -> None:
    done = run("serve")
    assert done.exit_code == 2
    assert "FHIR_SCHED_AUTH=open" in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_with_open_refuses_an_address_that_others_reach() -> None:
    done = run("serve", "--auth", "open", "--host", "0.0.0.0")
    assert done.exit_code == 2
    assert "FHIR_SCHED_HOST" in done.stderr


def test_migrate_does_not_take_the_serving_role_for_the_owner() -> None:
    done = run("migrate", database_url="postgresql://fhir_sched_app@/clinic")
    assert done.exit_code == 2
    assert done.stderr.startswith("fhir-sched: FHIR_SCHED_ADMIN_URL: ")


def test_migrate_check_and_demo_work_on_ones_own_database(cluster: Cluster) -> None:
    with cluster.fresh() as database:
        first = run("migrate", admin_url=database.admin_url, app_password="for-tests")
        assert first.exit_code == 0, first.output
        assert "001_model.sql" in first.stdout
        assert run("migrate", "--admin-url", database.admin_url).stdout == "the database is current\n"

        loaded = run("demo", database_url=database.app_url)
        assert loaded.exit_code == 0, loaded.output
        assert "slots added" in loaded.stdout

        found = run("check", database_url=database.app_url)
        # The test cluster may do without durability, which is all that may be found.
        problems = [line for line in found.stdout.splitlines() if "is off, so what was confirmed" not in line]
        assert (found.exit_code, problems) in ((0, ["all is well"]), (1, []))


def test_migrate_migrates_and_check_finds_the_embedded_database_well(tmp_path: Path) -> None:
    data_dir = str(tmp_path / "data")
    before = run("check", data_dir=data_dir)
    assert before.exit_code == 1
    assert run("migrate", data_dir=data_dir).exit_code == 0
    after = run("check", data_dir=data_dir)
    assert (after.exit_code, after.stdout) == (0, "all is well\n")


def test_a_migration_that_stops_says_why_with_code_1(cluster: Cluster) -> None:
    with cluster.fresh() as database:
        with database.connect_admin() as connection:
            connection.execute("create table slots (id uuid)")
        done = run("migrate", admin_url=database.admin_url)
        assert done.exit_code == 1
        assert "table schedules is missing" in done.stderr


def test_a_database_that_is_down_is_one_line_and_code_1(tmp_path: Path) -> None:
    for command in ("migrate", "demo"):
        url = f"postgresql://app@/none?host={tmp_path}"
        done = run(command, admin_url=url, database_url=url)
        assert done.exit_code == 1
        assert done.stderr.startswith("fhir-sched: ")
        assert done.stderr.count("\n") == 1


def test_serve_refuses_a_database_that_is_not_fit(database: Database) -> None:
    done = run("serve", auth="open", port="0", database_url=database.admin_url)
    assert done.exit_code == 1
    assert "is a superuser" in done.stderr


def test_capability_prints_the_statement_for_a_base_of_ones_choice() -> None:
    done = run("capability", "--base", "https://fhir.example/fhir/5eed0000-0000-4000-8000-000000000001")
    statement = json.loads(done.stdout)
    assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    assert statement["implementation"]["url"].startswith("https://fhir.example/")
