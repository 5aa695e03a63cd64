"""How fast events leave: into JetStream beside the same SQL alone, and how long a webhook waits for a commit.

`python -m bench.events` starts a PostgreSQL, a nats-server (Debian's) and a relay of its own. The SQL alone is what the
relay runs to take and mark events, sent by a program that does nothing with them. What Subscriptions get is in
`bench.notified`, what bookings notice of a relay in `bench.noticed`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from bench import noticed, notified
from bench.relaying import relay
from fhir_sched.db import embedded, migrations
from fhir_sched.events import outbox
from fhir_sched.events.session import connect, under

_BATCH = 500
_SERVER = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


def main() -> int:
    """The command `python -m bench.events`."""
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=__doc__)
    parser.add_argument("--events", type=int, default=30_000, help="of the backlog that is drained")
    parser.add_argument("--commits", type=int, default=200, help="whose way to the webhook is timed")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    results: dict[str, Any] = {"events": arguments.events}
    with (
        tempfile.TemporaryDirectory(prefix="fhir-sched-bench-") as folder,
        embedded.start(Path(folder) / "data", purpose="bench", server_settings=_SERVER) as running,
    ):
        migrations.migrate(running.admin_url)
        results |= _throughput(running, Path(folder), arguments.events, arguments.rounds)
        results |= _delay(running, arguments.commits)
        results |= notified.measured(running, arguments.events // 6, arguments.commits)
        results |= noticed.measured(running, arguments.rounds)
    print(json.dumps(results, indent=2))
    return 0


# into JetStream


def _throughput(running: embedded.Embedded, folder: Path, events: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {"sql_per_s": [], "discard_per_s": [], "nats_per_s": []}
    with _broker(folder) as broker:
        for number in range(rounds):
            _backlog(running, events)
            found["sql_per_s"].append(events / _sql_alone(running))
            _backlog(running, events)
            found["discard_per_s"].append(events / _drain(running, "discard:"))
            if broker:
                _backlog(running, events)
                found["nats_per_s"].append(events / _drain(running, f"{broker}/bench{number}"))
    medians: dict[str, Any] = {name: round(statistics.median(values)) for name, values in found.items() if values}
    if broker:
        medians["nats_share_of_sql"] = round(medians["nats_per_s"] / medians["sql_per_s"], 3)
    else:
        medians["nats"] = "not measured: nats-server is not installed"
    return medians


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """The URL of a nats-server with JetStream; empty where there is none."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        yield ""
        return
    ports = folder / "ports"
    ports.mkdir()
    command = [program, "-js", "-sd", str(folder / "jetstream"), "-a", "127.0.0.1", "-p", "-1"]
    process = subprocess.Popen(
        [*command, "--ports_file_dir", str(ports)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (files := list(ports.glob("*.ports"))) or not files[0].read_text():
            time.sleep(0.05)
        yield str(json.loads(files[0].read_text())["nats"][0])
    finally:
        process.terminate()
        process.wait(10)


def _backlog(running: embedded.Embedded, events: int) -> None:
    """That many events of ordinary slots, which other programs have made, and nothing else."""
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute("truncate outbox, outbox_deliveries")
        tenant, schedule = uuid4(), uuid4()
        connection.execute(
            "insert into schedules (id, tenant_id, actor_id, actor_type) values (%s, %s, %s, 'provider')",
            [schedule, tenant, uuid4()],
        )
        connection.execute(
            """
            insert into slots (tenant_id, schedule_id, start_at, end_at)
            select %s, %s, at, at + interval '15 minutes'
            from (select timestamptz '2031-01-01' + n * interval '15 minutes' as at from generate_series(2, %s) n) made
            """,
            [tenant, schedule, events],
        )
        connection.execute("vacuum analyze outbox")
        connection.execute("checkpoint")


def _sql_alone(running: embedded.Embedded) -> float:
    """Seconds in which a program takes and marks every event and does nothing with them."""

    async def drain() -> float:
        async with await connect(running.app_url) as connection:
            cursor = await connection.execute("select t::text from fhir_sched_tenants_torelay() t")
            ((tenant,),) = [(str(row[0]),) for row in await cursor.fetchall()]
            began = time.perf_counter()
            while True:
                async with under(connection, tenant):
                    events = await outbox.take(connection, tenant, _BATCH)
                    if not events:
                        return time.perf_counter() - began
                    await outbox.mark(connection, tenant, [event.id for event in events], "published")

    return asyncio.run(drain())


def _drain(running: embedded.Embedded, sink: str) -> float:
    """Seconds from the first event that a relay publishes to the last."""
    with psycopg.connect(running.admin_url, autocommit=True) as connection, relay(running, sink, "--once") as process:
        while not _published(connection):
            time.sleep(0.002)
        first = _published(connection)
        began = time.perf_counter()
        process.wait(120)
        took = time.perf_counter() - began
        total = _published(connection)
    return took * total / (total - first)


def _published(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select count(*) from outbox where published").fetchone()
    return int(row[0]) if row else 0


# to a webhook


def _delay(running: embedded.Embedded, commits: int) -> dict[str, Any]:
    """From the end of a commit to the request of the webhook, in ms; one at a time, with pauses between."""
    arrived: dict[str, float] = {}

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived[json.loads(body)["subject"]] = time.perf_counter()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        with (
            relay(running, url, "--allow-private"),
            psycopg.connect(running.admin_url, autocommit=True) as connection,
        ):
            # the first one waits for the relay's start
            _one(connection, arrived, 0)
            delays = [_one(connection, arrived, pause_s) for pause_s in _pauses(commits)]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    delays.sort()
    return {
        "webhook_p50_ms": round(delays[len(delays) // 2], 1),
        "webhook_p99_ms": round(delays[int(len(delays) * 0.99)], 1),
        "webhook_max_ms": round(delays[-1], 1),
    }


def _pauses(commits: int) -> list[float]:
    """Mostly short ones, and some after which the relay sleeps."""
    return [0.9 if number % 10 == 0 else 0.02 for number in range(commits)]


def _one(connection: psycopg.Connection[Any], arrived: dict[str, float], pause_s: float) -> float:
    time.sleep(pause_s)
    schedule: UUID = uuid4()
    connection.execute(
        "insert into schedules (id, tenant_id, actor_id, actor_type) values (%s, %s, %s, 'provider')",
        [schedule, UUID(int=7), uuid4()],
    )
    committed = time.perf_counter()
    while (at := arrived.get(f"Schedule/sch-{schedule}")) is None:
        time.sleep(0.0005)
        if time.perf_counter() > committed + 30:
            raise RuntimeError("the webhook heard nothing for 30 s")
    return (at - committed) * 1000


if __name__ == "__main__":
    sys.exit(main())
