"""What happens when ten times more is asked than the server can do, and when one tenant is noisy. Loopback only.

`python -m bench.overload` starts a server of its own on a database of its own with a few thousand slots. Clients keep
one request in flight each and don't wait when they are refused: the worst that well-formed clients can do.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from fhir_sched.db import embedded, migrations

NOISY = UUID("00000000-0000-4000-8000-00000000000a")
QUIET = UUID("00000000-0000-4000-8000-00000000000b")
_SLOTS = 2000
_CLOSED = b"000"
# arguments of drive, by place and by name
_Load = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Answers:
    """Latencies in ms by status; `seconds` that the load lasted."""

    seconds: float
    latencies: dict[bytes, list[float]] = field(default_factory=lambda: defaultdict(list))

    def rate(self, status: bytes = b"200") -> float:
        """Answers a second with that status."""
        return len(self.latencies[status]) / self.seconds

    def at(self, share: float, status: bytes = b"200") -> float:
        """The latency in ms that this share of the answers keeps; 0 when there are none."""
        ordered = sorted(self.latencies[status])
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def statuses(self) -> dict[str, int]:
        """How many answers there were of each status."""
        return {status.decode(): len(found) for status, found in sorted(self.latencies.items())}


def drive(
    port: int, requests: list[bytes], connections: int, seconds: float, *, pace_s: float = 0.0, patient: bool = False
) -> Answers:
    """Keep one request in flight on each connection; with `pace_s` every connection begins one that often at most.

    `patient` connections wait a second after a refusal, as Retry-After says.
    """
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    begun: dict[int, float] = {}
    due: list[tuple[float, int]] = []
    partial: dict[int, bytes] = {}
    answers = Answers(seconds)
    number = 0

    def send(one: int) -> None:
        nonlocal number
        number += 1
        begun[one] = time.perf_counter()
        sockets[one].send(requests[number % len(requests)])

    def connect() -> int:
        made = socket.create_connection(("127.0.0.1", port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[made.fileno()] = made
        poll.register(made, select.EPOLLIN)
        return made.fileno()

    ends = time.perf_counter() + seconds
    due += [(time.perf_counter() + pace_s * index / connections, connect()) for index in range(connections)]
    while time.perf_counter() < ends:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            send(heapq.heappop(due)[1])
        for one, _ in poll.poll(0.001 if due else 0.05):
            got = sockets[one].recv(262_144)
            data = partial.pop(one, b"") + got
            if got and not _whole(data):
                partial[one] = data
                continue
            now = time.perf_counter()
            status = data[9:12] if got else _CLOSED
            answers.latencies[status].append((now - begun[one]) * 1000)
            if not got:
                poll.unregister(one)
                sockets.pop(one).close()
                one = connect()  # noqa: PLW2901 - it goes on in the place of the old one
            pause_s = max(begun.get(one, now) + pace_s - now, 0.0)
            if patient and status == b"503":
                pause_s = 1.0
            if pause_s > 0:
                heapq.heappush(due, (now + pause_s, one))
            else:
                send(one)
    for last in sockets.values():
        last.close()
    return answers


def _whole(data: bytes) -> bool:
    """Whether this is the whole of an answer."""
    head = data.find(b"\r\n\r\n")
    length = data.find(b"content-length: ", 0, head) + 16
    return head >= 0 and len(data) >= head + 4 + int(data[length : data.index(b"\r", length)])


def _child(queue: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    queue.put(drive(*arguments, **options))


def together(*loads: _Load) -> list[Answers]:
    """The loads at the same time, each in a process of its own."""
    context = multiprocessing.get_context("fork")
    queues = []
    for arguments, options in loads:
        queue: Any = context.SimpleQueue()
        context.Process(target=_child, args=(queue, arguments, options), daemon=True).start()
        queues.append(queue)
    return [queue.get() for queue in queues]


@contextmanager
def server() -> Iterator[tuple[int, dict[UUID, list[str]]]]:
    """(port of a running server, ids of slots by tenant)."""
    with (
        tempfile.TemporaryDirectory(prefix="fhir-sched-overload-") as directory,
        embedded.start(Path(directory), purpose="overload") as database,
    ):
        migrations.migrate(database.admin_url)
        slots = {tenant: _fill(database.admin_url, tenant) for tenant in (NOISY, QUIET)}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        process = _start(database.app_url, port)
        try:
            yield port, slots
        finally:
            process.terminate()
            process.wait(15)


def _start(url: str, port: int) -> subprocess.Popen[bytes]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SCHED_")}
    given = {"FHIR_SCHED_DATABASE_URL": url, "FHIR_SCHED_AUTH": "open", "FHIR_SCHED_PORT": str(port)}
    program = Path(sys.executable).with_name("fhir-sched")
    process = subprocess.Popen(
        [program, "serve"], env={**bare, **given}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    if not process.stdout.readline():
        raise RuntimeError(f"the server ended with {process.wait(10)}")
    return process


def _fill(url: str, tenant: UUID) -> list[str]:
    with psycopg.connect(url) as connection:
        schedule = uuid4()
        connection.execute(
            "insert into schedules (id, tenant_id, actor_id, actor_type) values (%s, %s, %s, 'provider')",
            [schedule, tenant, uuid4()],
        )
        rows = connection.execute(
            "insert into slots (tenant_id, schedule_id, start_at, end_at, status)"
            " select %s, %s, at, at + interval '20 minutes', 'free'"
            " from generate_series(timestamptz '2031-01-01', timestamptz '2031-01-01' + %s * interval '20 minutes',"
            " interval '20 minutes') at returning id",
            [tenant, schedule, _SLOTS],
        ).fetchall()
    return [f"slt-{row[0]}" for row in rows]


def reads(tenant: UUID, slots: list[str]) -> list[bytes]:
    """GET of each slot."""
    return [_get(f"/fhir/{tenant}/Slot/{each}") for each in slots]


def searches(tenant: UUID) -> list[bytes]:
    """A page of fifty free slots."""
    return [_get(f"/fhir/{tenant}/Slot?status=free&_count=50")]


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n\r\n".encode()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with server() as (port, slots):
        for name, requests in (("reads", reads(NOISY, slots[NOISY])), ("searches", searches(NOISY))):
            _overload(name, port, requests, chosen.seconds, chosen.rounds)
        _noise(port, slots, chosen.seconds, chosen.rounds)
    return 0


def _overload(name: str, port: int, requests: list[bytes], seconds: float, rounds: int) -> None:
    drive(port, requests, 32, 2)
    shares = []
    for _ in range(rounds):
        peak = max((drive(port, requests, number, seconds) for number in (32, 64)), key=Answers.rate)
        for patient in (False, True):
            crowd = drive(port, requests, 320, seconds, patient=patient)
            shares.append(crowd.rate() / peak.rate())
            kind = "patient" if patient else "impatient"
            best = f"peak {peak.rate():,.0f}/s p99 {peak.at(0.99):.1f} ms"
            refused = f"refused {crowd.rate(b'503'):,.0f}/s p99 {crowd.at(0.99, b'503'):.1f} ms"
            print(
                f"{name}: {best}; 320 {kind} clients {crowd.rate():,.0f}/s"
                f" ({shares[-1]:.0%}) p99 {crowd.at(0.99):.0f} ms; {refused} {json.dumps(crowd.statuses())}",
                flush=True,
            )
    print(f"{name}: goodput {statistics.median(shares):.0%} of its peak\n", flush=True)


def _noise(port: int, slots: dict[UUID, list[str]], seconds: float, rounds: int) -> None:
    quiet: _Load = ((port, reads(QUIET, slots[QUIET]), 8, seconds), {"pace_s": 0.02})
    polite: _Load = ((port, reads(NOISY, slots[NOISY]), 32, seconds), {})
    noisy: _Load = ((port, reads(NOISY, slots[NOISY]), 320, seconds), {})
    for _ in range(rounds):
        (alone,) = together(quiet)
        before, _ = together(quiet, polite)
        during, noise = together(quiet, noisy)
        times = during.at(0.99) / before.at(0.99)
        print(
            f"quiet tenant ({alone.rate():,.0f}/s): p99 alone {alone.at(0.99):.1f} ms, beside a tenant of 32 clients"
            f" {before.at(0.99):.1f} ms, beside one of 320 {during.at(0.99):.1f} ms ({times:.2f} times)"
            f" {json.dumps(during.statuses())}; the noisy one {noise.rate():,.0f}/s {json.dumps(noise.statuses())}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
