"""`fhir-sched slots generate`: all active schedules, again, beside itself, and after an end half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result

from db import Database
from fhir_sched.cli import main
from programs import Clinic

PROGRAM = str(Path(sys.executable).with_name("fhir-sched"))
ALL_DAY = {
    "rules": [
        {
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "start": "00:00",
            "end": "24:00",
            "slotMinutes": 60,
        }
    ]
}


def run(database: Database, *arguments: str) -> Result:
    command = ["slots", "generate", "--database-url", database.app_url, *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


@pytest.fixture
def clinic(database: Database, tenant: UUID) -> Iterator[Clinic]:
    """A tenant without a schedule."""
    opened = Clinic(database, tenant)
    yield opened
    opened.leave()


def begins(clinic: Clinic, schedule: UUID) -> list[datetime]:
    rows = clinic.rows("select start_at from slots where schedule_id = %s order by start_at", schedule)
    return [row[0] for row in rows]


@contextmanager
def held(clinic: Clinic, schedule: UUID) -> Iterator[None]:
    """Somebody writes to the schedule and does not end."""
    connection = clinic.root()
    with connection.transaction():
        connection.execute("select from schedules where id = %s for update", [schedule])
        yield


def test_all_active_schedules_get_slots_from_now_to_the_horizon(clinic: Clinic) -> None:
    other = Clinic(clinic.database, uuid4())
    schedules = [clinic.schedule(availability_pattern=ALL_DAY) for _ in range(3)]
    elsewhere = other.schedule(availability_pattern=ALL_DAY, timezone="Asia/Kathmandu")
    inactive = clinic.schedule(availability_pattern=ALL_DAY, is_active=False)
    started = datetime.now(UTC)
    done = run(clinic.database, "--horizon-days", "2")
    assert done.exit_code == 0, done.output
    for schedule in schedules:
        found = begins(clinic, schedule)
        midnight = started.replace(hour=0, minute=0, second=0, microsecond=0)
        assert started - timedelta(seconds=1) <= found[0] <= started + timedelta(hours=2)
        assert found[-1] in (midnight + timedelta(hours=71), midnight + timedelta(hours=95))
        assert len(found) == (found[-1] - found[0]) / timedelta(hours=1) + 1
    assert begins(clinic, inactive) == []
    assert begins(other, elsewhere)
    count = sum(len(begins(clinic, schedule)) for schedule in schedules)
    assert f"tenant {clinic.tenant}: 3 of 3 schedules, {count} slots added, 0 withdrawn" in done.stdout
    announced = "select count(*) from outbox where tenant_id = %s and event_type like 'slot%%'"
    assert clinic.rows(announced, clinic.tenant) == [(3,)]
    other.leave()


def test_again_it_adds_nothing_and_takes_back_what_changed_rules_do_not_give(clinic: Clinic) -> None:
    schedule = clinic.schedule(availability_pattern=ALL_DAY)
    only = ("--horizon-days", "1", "--tenant", str(clinic.tenant))
    run(clinic.database, *only)
    count = len(begins(clinic, schedule))
    assert "1 of 1 schedules, 0 slots added, 0 withdrawn" in run(clinic.database, *only).stdout
    clinic.root().execute("update schedules set availability_pattern = null where id = %s", [schedule])
    assert f"0 slots added, {count} withdrawn" in run(clinic.database, *only).stdout


def test_several_at_once_share_the_work(clinic: Clinic) -> None:
    schedules = [clinic.schedule(availability_pattern=ALL_DAY) for _ in range(12)]
    command = [PROGRAM, "slots", "generate", "--horizon-days", "20", "--tenant", str(clinic.tenant)]
    environment = {**os.environ, "FHIR_SCHED_DATABASE_URL": clinic.database.app_url}

    def once(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(once, range(3)))
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert all("12 of 12 schedules" in each.stdout for each in done)
    added = sum(int(each.stdout.split(" slots added")[0].rsplit(" ", 1)[1]) for each in done)
    assert added == sum(len(begins(clinic, schedule)) for schedule in schedules)
    announced = "select count(*), count(distinct aggregate_id) from outbox where tenant_id = %s and event_type = %s"
    assert clinic.rows(announced, clinic.tenant, "slots.generated") == [(12, 12)]


def test_a_run_that_was_killed_is_gone_on_with(clinic: Clinic) -> None:
    first, *others = sorted(clinic.schedule(availability_pattern=ALL_DAY) for _ in range(4))
    command = [PROGRAM, "slots", "generate", "--horizon-days", "3", "--tenant", str(clinic.tenant)]
    environment = {**os.environ, "FHIR_SCHED_DATABASE_URL": clinic.database.app_url}
    with held(clinic, first):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _until(lambda: all(begins(clinic, schedule) for schedule in others))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert begins(clinic, first) == []
    done = run(clinic.database, "--horizon-days", "3", "--tenant", str(clinic.tenant))
    assert f"4 of 4 schedules, {len(begins(clinic, first))} slots added" in done.stdout
    assert begins(clinic, first)


def test_a_schedule_that_fails_is_named_and_the_others_go_on(clinic: Clinic) -> None:
    schedules = [clinic.schedule(availability_pattern=ALL_DAY) for _ in range(2)]
    root = clinic.root()
    root.execute("create function pg_temp.fail() returns trigger language plpgsql as $$ begin raise 'no room'; end $$")
    trigger = "create trigger zz before insert on slots for each row when (new.schedule_id = '{}') execute function "
    root.execute((trigger.format(schedules[0]) + "pg_temp.fail()").encode())
    done = run(clinic.database, "--horizon-days", "0", "--tenant", str(clinic.tenant))
    root.execute("drop trigger zz on slots")
    assert (done.exit_code, done.stderr) == (1, f"fhir-sched: schedule {schedules[0]}: no room\n")
    assert "2 of 2 schedules" in done.stdout


@pytest.mark.parametrize("arguments", [["--horizon-days", "-1"], ["--horizon-days", "x"], ["--tenant", "clinic"]])
def test_a_wrong_flag_is_code_2(database: Database, arguments: list[str]) -> None:
    assert run(database, *arguments).exit_code == 2


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_database_that_is_down_is_one_line(tmp_path: Path) -> None:
    gone = Database("", f"postgresql://app@/none?host={tmp_path}")
    done = run(gone)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    with pytest.raises(psycopg.OperationalError):
        gone.connect_app()
