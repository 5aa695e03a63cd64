"""SIGTERM with requests under way, and an embedded PostgreSQL that is killed: nothing that was read is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from clinic import Clinic, appointment
from db import Database
from fhir_sched.settings import PREFIX
from server import Server


def test_sigterm_turns_readiness_off_first_and_ends_after_the_last_answer(database: Database) -> None:
    server = Server(database.app_url)
    server.start()
    clinic = Clinic(server, database)
    slot = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
    # the cluster of the tests does without durability, for which no server is ever ready
    assert "shutting down" not in server.client.get("/readyz").text
    with ThreadPoolExecutor() as threads:
        with database.connect_admin() as holder, holder.transaction():
            holder.execute("select from slots where id = %s for update", [slot["id"].removeprefix("slt-")])
            booking = threads.submit(httpx.post, f"{clinic.base}/Appointment", json=appointment(slot), timeout=10)
            _until(lambda: b"requests_running 1.0" in server.client.get("/metrics").content)
            began = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            _until(lambda: "shutting down" in httpx.get(f"{server.url}/readyz").text)
            # a connection that is kept alive is told to come again elsewhere
            assert clinic.http.get(f"Slot/{slot['id']}").headers["connection"] == "close"
            assert not booking.done()
        assert booking.result().status_code == 201
    clinic.close()
    assert server.stop() == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_that_never_finish_do_not_hold_the_end_up(database: Database, workers: str) -> None:
    server = Server(database.app_url, workers=workers)
    server.start()
    _until(lambda: _answers(server))
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /fhir/x HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nhalf")
        assert server.client.get("/healthz").status_code == 200
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10


def test_an_embedded_postgresql_that_is_killed_is_started_again(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    program = str(Path(sys.executable).with_name("fhir-sched"))
    command = [program, "serve", "--demo", "--auth", "open", "--port", "0", "--data-dir", str(tmp_path)]
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            base = next(line.strip() for line in process.stdout if line.startswith("  http://"))
            with httpx.Client(base_url=base) as http:
                assert http.get("/Slot", params={"_count": 1}).status_code == 200
                statuses = [_after_a_kill(process.pid, http) for _ in range(2)]
            assert set().union(*statuses) <= {200, 503}
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert "started again" in (tmp_path / "stderr").read_text()
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def _after_a_kill(pid: int, http: httpx.Client) -> set[int]:
    """The statuses of requests from the kill of PostgreSQL until one is answered by a new one."""
    (postmaster,) = psutil.Process(pid).children()
    postmaster.kill()
    statuses: set[int] = set()

    def back() -> bool:
        statuses.add(http.get("/Slot", params={"_count": 1}).status_code)
        pids = [child.pid for child in psutil.Process(pid).children()]
        return bool(pids) and postmaster.pid not in pids

    _until(back)
    _until(lambda: http.get("/Slot", params={"_count": 1}).status_code == 200)
    return statuses


def _answers(server: Server) -> bool:
    try:
        return server.client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
