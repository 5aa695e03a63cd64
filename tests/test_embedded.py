"""The embedded PostgreSQL: made, stopped, killed, found again; nothing that was committed is lost."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from fhir_sched.db import embedded
from fhir_sched.db.embedded import Embedded, EmbeddedError


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def _postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])


def _remember(server: Embedded, word: str) -> None:
    with psycopg.connect(server.admin_url) as connection:
        connection.execute("create table if not exists kept (word text)")
        connection.execute("insert into kept values (%s)", [word])


def _remembered(server: Embedded) -> list[str]:
    with psycopg.connect(server.admin_url) as connection:
        return [str(row[0]) for row in connection.execute("select word from kept order by word")]


def test_it_is_durable_utc_and_only_on_a_socket_of_ours(data_dir: Path) -> None:
    with embedded.start(data_dir) as server, psycopg.connect(server.admin_url) as connection:
        expected = {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "listen_addresses": "",
            "max_connections": "100",
        }
        found = {name: connection.execute("select current_setting(%s)", [name]).fetchone() for name in expected}
        assert {name: value[0] if value else None for name, value in found.items()} == expected
        locale = connection.execute("select datlocale from pg_database where datname = current_database()").fetchone()
        assert locale == ("C.UTF-8",)
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700


def test_data_are_there_after_a_restart(data_dir: Path) -> None:
    with embedded.start(data_dir) as server:
        _remember(server, "one")
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    with embedded.start(data_dir) as server:
        assert _remembered(server) == ["one"]


def test_data_are_there_after_the_server_was_killed(data_dir: Path) -> None:
    with embedded.start(data_dir) as server:
        _remember(server, "one")
        os.kill(_postmaster(data_dir), signal.SIGKILL)
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    with embedded.start(data_dir) as server:
        assert _remembered(server) == ["one"]


def test_the_server_ends_with_an_owner_that_was_killed(data_dir: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from fhir_sched.db import embedded
embedded.start(Path(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        postmaster = psutil.Process(_postmaster(data_dir))
        owner.kill()
    postmaster.wait(10)
    with embedded.start(data_dir) as server:
        _remember(server, "after")
    log = (data_dir / "postgres.log").read_text(encoding="utf-8")
    assert "received fast shutdown request" in log
    assert "was not properly shut down" not in log


def test_a_pid_file_whose_number_belongs_to_something_else_does_not_stop_it(data_dir: Path) -> None:
    with embedded.start(data_dir) as server:
        _remember(server, "one")
    stale = f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n\n\n1 1\nready\n"
    (data_dir / "postgres" / "postmaster.pid").write_text(stale, encoding="ascii")
    with embedded.start(data_dir) as server:
        assert _remembered(server) == ["one"]


def test_a_server_that_outlived_its_owner_is_shut_down_first(data_dir: Path) -> None:
    left = embedded.start(data_dir)
    _remember(left, "one")
    before = _postmaster(data_dir)
    assert left.owner_lock is not None
    left.owner_lock.close()
    with embedded.start(data_dir) as server:
        assert _remembered(server) == ["one"]
        assert _postmaster(data_dir) != before
    left.stop()


def test_a_second_server_on_the_same_data_is_refused_in_one_line(data_dir: Path) -> None:
    with embedded.start(data_dir, purpose="fhir-sched serve"), pytest.raises(EmbeddedError) as refusal:
        embedded.start(data_dir, lock_timeout_s=0.1)
    assert f"in use by fhir-sched serve (pid {os.getpid()})" in str(refusal.value)
    assert "FHIR_SCHED_DATA_DIR" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_start_waits_for_an_owner_that_is_about_to_end(data_dir: Path) -> None:
    first = embedded.start(data_dir)
    _remember(first, "one")
    timer = threading.Timer(0.3, first.stop)
    timer.start()
    with embedded.start(data_dir, lock_timeout_s=10) as second:
        assert _remembered(second) == ["one"]
    timer.join()


def test_a_command_shares_a_server_that_runs_and_leaves_it_running(data_dir: Path) -> None:
    with embedded.start(data_dir) as server:
        _remember(server, "one")
        with embedded.start(data_dir, exclusive=False) as shared:
            assert _remembered(shared) == ["one"]
            assert shared.process is None
        assert _remembered(server) == ["one"]


def test_a_half_made_cluster_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n", encoding="ascii")
    with embedded.start(data_dir) as server:
        _remember(server, "one")
    assert not (data_dir / "postgres.new").exists()


def test_data_of_another_major_version_are_refused_in_one_line(data_dir: Path) -> None:
    with embedded.start(data_dir):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n", encoding="ascii")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 16.*FHIR_SCHED_DATA_DIR"):
        embedded.start(data_dir)


def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    data_dir = tmp_path / ("x" * 60) / ("y" * 60)
    with embedded.start(data_dir) as server:
        _remember(server, "one")
        assert len(str(server.socket_dir)) < 80
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give up its rights")
def test_root_starts_it_as_another_user_even_where_that_user_cannot_walk(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded.start(closed / "data") as server:
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().real != 0
        _remember(server, "one")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with embedded.start(closed / "data") as server:
        assert _remembered(server) == ["one"]


def test_a_user_without_an_account_is_told_so_in_one_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("fhir_sched.db.cluster.pwd.getpwuid", unknown)
    with pytest.raises(EmbeddedError, match=r"no entry in /etc/passwd.*FHIR_SCHED_DATABASE_URL"):
        embedded.start(data_dir)
