"""Relays that can be killed, a receiver that can kill them, a program that makes events; and what must hold of it all.

Law: every event arrives; of each row's events none arrives before the one in front of it has; a repeat has the same id
and the same bytes. Knows nothing of how a relay works.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg

from events.receiver import Receiver, Request
from faults.world import World
from fhir_sched.settings import PREFIX

_BARE = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
_COMMAND = [sys.executable, "-c", "from fhir_sched.cli import main; main()", "relay", "--allow-private"]


@dataclass(frozen=True)
class Told:
    """An event of the outbox, in the order in which they were written: `row` is what it is about."""

    id: str
    row: str
    published: bool


def violations(written: list[Told], arrived: list[Request]) -> list[str]:
    """What is wrong, a sentence each; empty when all is well."""
    found = [f"{event.id} is not published" for event in written if not event.published]
    bodies: dict[str, bytes] = {}
    for request in arrived:
        event = request.event["id"]
        if request.headers["webhook-id"] != event or bodies.setdefault(event, request.body) != request.body:
            found.append(f"{event} was another event when it was repeated")
    found += [f"{event.id} never arrived" for event in written if event.id not in bodies]
    place: dict[str, tuple[str, int]] = {}
    lengths: dict[str, int] = {}
    for event in written:
        lengths[event.row] = place_of = lengths.get(event.row, 0) + 1
        place[event.id] = (event.row, place_of)
    reached: dict[str, int] = {}
    for request in arrived:
        if request.event["id"] not in place:
            found.append(f"{request.event['id']} is no event of the outbox")
            continue
        row, number = place[request.event["id"]]
        if number > reached.get(row, 0) + 1:
            found.append(f"event {number} of {row} arrived when {reached.get(row, 0)} had")
        reached[row] = max(reached.get(row, 0), number)
    return found


class Relays:
    """Processes of `fhir-sched relay` on the world's database, all with the same sinks."""

    def __init__(self, world: World, *sinks: str, **settings: str) -> None:
        self._sinks = [part for sink in sinks for part in ("--sink", sink)]
        given = {PREFIX + name.upper(): value for name, value in settings.items()}
        self._environment = {**_BARE, f"{PREFIX}DATABASE_URL": world.postgres.app_url, **given}
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """One more."""
        process = subprocess.Popen([*_COMMAND, *self._sinks, "--log-level", "error", *options], env=self._environment)
        self.running.append(process)
        return process

    def kill(self) -> None:
        """SIGKILL to one of them; it may be dead already."""
        if self.running:
            random.choice(self.running).kill()

    def bury(self) -> None:
        """Forget those that have ended."""
        self.running = [process for process in self.running if process.poll() is None]

    def drain(self) -> None:
        """Another one sends what is left, and ends."""
        last = self.start("--once")
        assert last.wait(120) == 0

    def end(self) -> None:
        """End all of them."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(15)
            finally:
                process.kill()
        self.bury()


_WAITING = 1_000


class Changes:
    """A program that changes rows of two tenants; `rate` is how often in a second at most.

    With `paced` it waits while a thousand events are not published: relays that are killed all the time take fewer than
    it makes, and the last one would have to send them all.
    """

    def __init__(self, world: World, *, rows: int = 20, rate: float = 400.0, paced: bool = False) -> None:
        self._world, self._rate, self._paced = world, rate, paced
        self.tenants = [uuid4(), uuid4()]
        self._rows: list[tuple[UUID, UUID]] = []
        with world.admin() as connection:
            connection.execute("truncate outbox, outbox_deliveries")
            for _ in range(rows):
                tenant, row = random.choice(self.tenants), uuid4()
                connection.execute(
                    "insert into schedules (id, tenant_id, actor_id, actor_type) values (%s, %s, %s, 'provider')",
                    [row, tenant, uuid4()],
                )
                self._rows.append((tenant, row))
        self._stop = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """While the block runs."""
        self._stop.clear()
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with self._world.admin() as connection:
                    while not self._stop.wait(1 / self._rate):
                        if not self._paced or self._waiting(connection) < _WAITING:
                            self._change(connection)
            except psycopg.Error:
                # PostgreSQL is away; what was committed is in the outbox
                time.sleep(0.05)

    def _waiting(self, connection: psycopg.Connection[Any]) -> int:
        row = connection.execute(
            "select count(*) from (select from outbox where published = false limit %s) waiting", [_WAITING]
        ).fetchone()
        return int(row[0]) if row else 0

    def _change(self, connection: psycopg.Connection[Any]) -> None:
        chosen = random.sample(self._rows, random.choice((1, 1, 1, 3)))
        with connection.transaction():
            for _, row in sorted(chosen):
                connection.execute("update schedules set timezone = timezone where id = %s", [row])

    def written(self) -> list[Told]:
        """What the outbox holds of them."""
        with self._world.admin() as connection:
            rows = connection.execute(
                "select id::text, aggregate_id::text, published from outbox where tenant_id = any(%s)"
                " order by (payload ->> 'version')::integer",
                [self.tenants],
            ).fetchall()
        return [Told(*row) for row in rows]


Answer = tuple[int, dict[str, str]]


def answering(
    receiver: Receiver, statuses: Mapping[int, float], slow_s: float = 0.0, on_event: Callable[[], None] | None = None
) -> None:
    """Let the receiver answer with these statuses by their weights, after `slow_s`; `on_event` hears of each before."""
    choices, weights = list(statuses), list(statuses.values())

    def answer(_: dict[str, Any]) -> Answer:
        if on_event is not None:
            on_event()
        if slow_s:
            time.sleep(random.uniform(0, slow_s))
        return random.choices(choices, weights)[0], {}

    receiver.answer = answer
