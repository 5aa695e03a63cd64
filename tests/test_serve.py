"""`fhir-sched serve` as a newcomer and an operator meet it: its output, its signals, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from fhir_sched.settings import PREFIX

PROGRAM = str(Path(sys.executable).with_name("fhir-sched"))


class Served:
    """A server that was started by the command line on a port that the system chose, and that has said it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.greeting = ""
        # The third line to paste is the last that is said.
        for line in process.stdout:
            self.greeting += line
            if len(self.curl_lines) == 3:
                break
        match = re.search(r"^  (http://\S+)$", self.greeting, re.MULTILINE)
        assert match, self.greeting
        self.base = match[1]

    @property
    def curl_lines(self) -> list[str]:
        return [line for line in self.greeting.splitlines() if line.startswith("curl ")]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        """Exit code after the signal; the server has ten seconds."""
        family = self.descendants()
        self.process.send_signal(number)
        code = self.process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
        return code


@contextmanager
def served(data_dir: Path, *flags: str) -> Iterator[Served]:
    """`fhir-sched serve --demo` on the embedded PostgreSQL in `data_dir`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    command = [PROGRAM, "serve", "--demo", "--auth", "open", "--port", "0", "--data-dir", str(data_dir), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield Served(process)
        finally:
            if process.poll() is None:
                process.terminate()


def pasted(line: str) -> dict[str, Any]:
    """What a line answers when it is pasted into a shell as it stands."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, timeout=20)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl")
def test_the_three_lines_work_pasted_one_by_one_and_the_data_outlive_the_server(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        search, book, see = server.curl_lines
        found = pasted(search)
        assert {entry["resource"]["status"] for entry in found["entry"]} == {"free"}
        booked = pasted(book)
        assert (booked["resourceType"], booked["status"]) == ("Appointment", "booked")
        assert [entry["resource"]["id"] for entry in pasted(see)["entry"]] == [booked["id"]]
        assert pasted(book)["resourceType"] == "OperationOutcome"
        assert server.end(signal.SIGINT) == 0
    with served(tmp_path) as again:
        assert again.curl_lines[1] != book
        ours = see.replace(server.base, again.base)
        assert [entry["resource"]["id"] for entry in pasted(ours)["entry"]] == [booked["id"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_server_and_database_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path) as server:
        assert server.end(number) == 0
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_killed_server_leaves_nothing_running_and_starts_again(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
    with served(tmp_path) as again:
        assert again.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_several_processes_serve_together_and_end_together(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path, "--workers", "2") as server:
        assert pasted(server.curl_lines[0])["resourceType"] == "Bundle"
        server.end(number)


def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [PROGRAM, "serve", "--auth", "open", "--port", port, "--data-dir", str(tmp_path / "data")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fhir-sched: cannot listen on 127.0.0.1 port {port}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
