"""A durable PostgreSQL and the real server on it, both of which can be killed and started again, and a load on them.

Law: PostgreSQL is started from the main thread alone, whose end it does not survive. Knows no operation.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import psutil
import psycopg

from clinic import later
from faults.ledger import Operation, read
from faults.load import Opening, Plan
from fhir_sched.db import embedded, migrations
from server import Server

HOST = "127.0.0.1"
APPLICATION = "fhir-sched"
"""What the server's connections call themselves."""


class World:
    """PostgreSQL below `directory` with fsync on; the server at `url`, always on the same port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.postgres = embedded.start(directory, purpose="fault tests")
        migrations.migrate(self.postgres.admin_url)
        self.server = Server(self.postgres.app_url, port=str(self.port), log_level="warning")

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.stop()
        self.postgres.stop()

    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's connection, in autocommit."""
        return psycopg.connect(self.postgres.admin_url, autocommit=True, application_name="tests")

    # killing

    def kill_server(self) -> None:
        """SIGKILL."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()

    def start_server(self) -> None:
        """Start it again on the same port and wait until it listens."""
        self.server.start()

    def kill_postgres(self, way: str) -> None:
        """`all`: SIGKILL to the postmaster and its children; `immediate`: its immediate shutdown; `backend`: one of the
        server's backends is killed, whereupon the postmaster ends all the others and recovers by itself."""
        assert self.postgres.process is not None
        postmaster = psutil.Process(self.postgres.process.pid)
        if way == "backend":
            with self.admin() as connection:
                pids = [row[0] for row in connection.execute(_BACKENDS, [APPLICATION])]
            if pids:
                os.kill(random.choice(pids), signal.SIGKILL)
            return
        if way == "immediate":
            postmaster.send_signal(signal.SIGQUIT)
            family = [postmaster]
        else:
            # stopped first, so that it starts no child meanwhile
            postmaster.suspend()
            family = [*postmaster.children(), postmaster]
            for process in family:
                _quietly(process.kill)
        eventually(lambda: all(map(_has_ended, family)), "every process of PostgreSQL has ended")
        self.postgres.stop()

    def stop_postgres(self) -> None:
        """A fast shutdown, as an operator's restart begins."""
        self.postgres.stop()

    def start_postgres(self) -> None:
        """Start it, where it does not run, and wait until it takes connections again."""
        if self.postgres.process is None or self.postgres.process.poll() is not None:
            self.postgres = embedded.start(self.directory, purpose="fault tests")
        eventually(self._takes_connections, "PostgreSQL takes connections")

    def _takes_connections(self) -> bool:
        try:
            self.admin().close()
        except psycopg.OperationalError:
            return False
        return True

    # looking

    def ready(self) -> bool:
        """What /readyz says."""
        return self.server.client.get("/readyz").status_code == 200

    def quiet(self) -> bool:
        """Whether no connection of a server, dead or alive, is about anything or inside a transaction."""
        with self.admin() as connection:
            return connection.execute(_BUSY, [APPLICATION]).fetchone() == (0,)

    def connections(self) -> dict[int, str]:
        """State by process id of the server's connections."""
        with self.admin() as connection:
            return {int(pid): str(state) for pid, state in connection.execute(_STATES, [APPLICATION])}

    # a tenant to book in

    def openings(self, tenant: UUID, *, practitioners: int = 2, slots: int = 12) -> tuple[Opening, ...]:
        """Two schedules for each practitioner, whose slots overlap each other's by half, made over HTTP."""
        made = []
        with self.server.fhir(tenant) as http:
            for _ in range(practitioners):
                practitioner = f"Practitioner/{uuid4()}"
                for shift in (0, 7):
                    schedule = {"resourceType": "Schedule", "actor": [{"reference": practitioner}]}
                    starts = [later("2031-03-03T08:00:00Z", shift + 15 * index) for index in range(slots)]
                    entries = [_entry("Schedule", schedule, "urn:uuid:5c4ed01e-0000-4000-8000-000000000001")]
                    for start in starts:
                        slot = {
                            "resourceType": "Slot", "status": "free", "start": start, "end": later(start, 15),
                            "schedule": {"reference": "urn:uuid:5c4ed01e-0000-4000-8000-000000000001"},
                        }  # fmt: skip
                        entries.append(_entry("Slot", slot))
                    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
                    answer = http.post("", json=bundle)
                    assert answer.status_code == 200, answer.text
                    of, *found = [entry["resource"] for entry in answer.json()["entry"]]
                    made += [Opening(each["id"], of["id"], each["start"], each["end"], practitioner) for each in found]
        return tuple(made)


class Load:
    """The load program on a tenant of the world."""

    def __init__(self, world: World, folder: Path, *, seed: int, clients: int = 8) -> None:
        self.tenant = uuid4()
        self.ledger = folder / f"{self.tenant}.jsonl"
        plan = Plan(HOST, world.port, str(self.tenant), seed, clients, world.openings(self.tenant))
        file = folder / f"{self.tenant}.plan.json"
        file.write_text(json.dumps(asdict(plan)), encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.load", str(file), str(self.ledger)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def work(self) -> None:
        """Set the clients to work."""
        self._say("work")

    def rest(self) -> int:
        """Let them finish what they are about; the number of operations so far."""
        return self._say("rest")

    def operations(self) -> list[Operation]:
        """What the ledger says; while the clients rest."""
        return read(self.ledger)

    def _say(self, command: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the load ended with {self._process.wait(10)}; what it said is above"
        return int(answer)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def loaded(world: World, folder: Path, *, seed: int, clients: int = 8) -> Iterator[Load]:
    """A load that ends with the block."""
    load = Load(world, folder, seed=seed, clients=clients)
    try:
        yield load
    finally:
        load.close()


def eventually(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Wait until the condition holds."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


_BACKENDS = "select pid from pg_stat_activity where application_name = %s"
_STATES = "select pid, state from pg_stat_activity where application_name = %s"
_BUSY = "select count(*) from pg_stat_activity where application_name = %s and state is distinct from 'idle'"


def _entry(kind: str, resource: dict[str, Any], full_url: str = "") -> dict[str, Any]:
    named = {"fullUrl": full_url} if full_url else {}
    return {**named, "resource": resource, "request": {"method": "POST", "url": kind}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
