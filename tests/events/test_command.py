"""`fhir-sched relay` as an operator uses it, and the relay inside `serve`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from clinic import Clinic, name
from db import Database
from events.receiver import Receiver
from fhir_sched.settings import PREFIX
from server import Server

COMMAND = [sys.executable, "-c", "from fhir_sched.cli import main; main()", "relay"]
BARE = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _run(database: Database, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {f"{PREFIX}{key.upper()}": value for key, value in environment.items()}
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**BARE, f"{PREFIX}DATABASE_URL": database.app_url, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_once_prints_what_there_is_and_ends(clinic: Clinic, database: Database) -> None:
    of = clinic.schedule()
    done = _run(database, "--sink", "stdout:", "--once")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["subject"] for line in done.stdout.splitlines()] == [name(of)]


def test_sinks_come_from_flags_and_the_environment(clinic: Clinic, database: Database, tmp_path: Path) -> None:
    clinic.schedule()
    files = [tmp_path / str(number) for number in range(3)]
    first, second, third = (f"file://{path}" for path in files)
    assert _run(database, "--once", sinks=f"{first}, {second}").returncode == 0
    clinic.sql("update outbox set published = false")
    assert _run(database, "--sink", first, "--sink", third, "--once").returncode == 0
    assert [len(path.read_text().splitlines()) for path in files] == [2, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--once"], "FHIR_SCHED_SINKS"),
        (["--sink", "ftp://x"], "FHIR_SCHED_SINKS"),
        (["--sink", "http://127.0.0.1:1/"], "ALLOW_PRIVATE_ENDPOINTS"),
        (["--sink", "stdout:", "--park-after", "0"], "FHIR_SCHED_PARK_AFTER"),
        (["--sink", "stdout:", "--webhook-secret", "whsec_!"], "FHIR_SCHED_WEBHOOK_SECRET"),
        (["--sink", "nats://127.0.0.1:99999/x"], "out of range"),
        (["resend"], "--all"),
    ],
)
def test_what_is_wrong_is_one_line(database: Database, arguments: list[str], said: str) -> None:
    done = _run(database, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--sink", ""], 2, "names no sink"),
        (["--sink", "stdout:", "--sink", " "], 2, "names no sink"),
        (["forget", "https://nobody.example/"], 1, "nothing is to be sent to https://nobody.example/"),
        (["resend", "00000000-0000-4000-8000-000000000001"], 1, "no event"),
        (["resend", "yesterday's"], 2, "not a valid UUID"),
    ],
)
def test_what_names_nothing_is_said_and_not_passed_over(
    database: Database, arguments: list[str], code: int, said: str
) -> None:
    done = _run(database, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_parked_events_are_listed_and_sent_again(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    clinic.schedule()
    receiver.answer = lambda _: (403, {})
    sink = ["--sink", receiver.url, "--allow-private", "--once"]
    assert _run(database, *sink, "--park-after", "1").returncode == 0
    listed = _run(database, "parked").stdout.split("\t")
    assert listed[:4] == [receiver.got[0].event["id"], receiver.url, "schedule.created", "1"]
    receiver.answer = lambda _: (200, {})
    assert _run(database, "resend", listed[0]).stdout == "1 to be sent again\n"
    assert _run(database, *sink).returncode == 0
    assert [event["id"] for event in receiver.taken] == [listed[0]]


def test_a_relay_ends_on_a_signal_and_tells_its_figures(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "--sink", receiver.url, "--allow-private", "--metrics-port", str(port)],
        env={**BARE, f"{PREFIX}DATABASE_URL": database.app_url},
    )
    try:
        clinic.schedule()
        _until(lambda: len(receiver.taken) == 1)
        figures = f'fhir_sched_relay_deliveries_total{{sink="{receiver.url}"}} 1.0'
        _until(lambda: figures in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_the_server_relays_by_itself_and_its_metrics_tell_of_it(
    clinic: Clinic, database: Database, receiver: Receiver
) -> None:
    down = True
    receiver.answer = lambda _: (500 if down else 204, {})
    with Server(database.app_url, sinks=receiver.url, allow_private_endpoints="true") as relaying:
        other = Clinic(relaying, database)
        made = other.schedule()
        other.close()

        def figures() -> dict[str, float]:
            lines = httpx.get(f"{relaying.url}/metrics").text.splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

        sink = f'{{sink="{receiver.url}"}}'
        _until(lambda: figures()["fhir_sched_outbox_waiting"] == 1)
        assert figures()["fhir_sched_outbox_oldest_seconds"] > 0
        _until(lambda: figures()[f"fhir_sched_relay_failures_total{sink}"] > 0)
        down = False
        _until(lambda: receiver.of(name(made)) == ["schedule.created"])
        _until(lambda: figures()[f"fhir_sched_relay_deliveries_total{sink}"] == 1)
        _until(lambda: figures()["fhir_sched_outbox_waiting"] == 0)
