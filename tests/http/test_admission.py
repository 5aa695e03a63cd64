"""More than the server can do: the excess is refused at once, and a tenant that asks for much waits behind itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from clinic import Clinic, appointment
from db import Database
from fhir_sched.http.admission import Bounds, Gate
from fhir_sched.outcome import FhirError
from server import Server

BOUNDS = Bounds(running=6, alone=4, shared=4, least=2, waiting=8, patience_s=5.0)
NOISY, QUIET = "noisy", "quiet"
# three quarters of the places for those that wait
WAITING_ALONE = 192


class _Crowd:
    """Requests at a gate, each of which ends when it is told to."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.running: list[str] = []
        self.refused = 0
        self._ends: dict[str, list[asyncio.Event]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, key: str, times: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._one(key)) for _ in range(times)]
        await asyncio.sleep(0)

    async def _one(self, key: str) -> None:
        try:
            async with self.gate.place(key):
                end = asyncio.Event()
                self._ends.setdefault(key, []).append(end)
                self.running.append(key)
                await end.wait()
                self.running.remove(key)
        except FhirError as error:
            if (error.status, error.headers) == (503, (("Retry-After", "1"),)):
                self.refused += 1

    async def end(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self._ends[key].pop(0).set()
        for _ in range(4):
            await asyncio.sleep(0)


def _scene(play: Callable[[_Crowd], Awaitable[None]], bounds: Bounds = BOUNDS) -> Gate:
    async def whole() -> Gate:
        crowd = _Crowd(Gate(bounds))
        await play(crowd)
        for task in crowd.tasks:
            task.cancel()
        await asyncio.gather(*crowd.tasks, return_exceptions=True)
        return crowd.gate

    gate = asyncio.run(whole())
    assert (gate.running, gate.waiting, gate._tenants) == (0, 0, {})
    return gate


def test_beyond_the_bounds_requests_wait_and_beyond_those_they_are_refused_at_once() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask(NOISY, 15)
        assert (len(crowd.running), crowd.gate.waiting, crowd.refused) == (4, 6, 5)
        assert crowd.gate.full(NOISY)
        await crowd.end(NOISY, 3)
        assert (len(crowd.running), crowd.gate.waiting) == (4, 3)
        assert not crowd.gate.full(NOISY)

    assert _scene(play).refused == 5


def test_a_tenant_finds_room_while_another_one_waits_behind_itself() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask(NOISY, 20)
        await crowd.ask(QUIET, 2)
        assert crowd.running.count(QUIET) == 2
        assert not crowd.gate.full(QUIET)
        # from now on both have a half of what is shared
        await crowd.end(NOISY, 3)
        assert crowd.running.count(NOISY) == 2

    _scene(play)


def test_many_tenants_that_asked_just_before_leave_a_tenant_room_to_wait() -> None:
    async def play(crowd: _Crowd) -> None:
        for number in range(50):
            await crowd.ask(str(number))
            await crowd.end(str(number))
        await crowd.ask(QUIET, 16)
        assert (len(crowd.running), crowd.refused) == (4, 0)
        await crowd.end(QUIET, 4)
        assert (len(crowd.running), crowd.gate.waiting) == (4, 8)

    _scene(play, Bounds())


def test_a_tenant_that_waits_for_much_leaves_others_room_to_wait() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask(NOISY, 15)
        await crowd.ask("third", 2)
        await crowd.ask(QUIET, 3)
        assert (crowd.gate.waiting, crowd.refused) == (8, 6)
        await crowd.end("third")
        assert crowd.running.count(QUIET) == 1

    _scene(play)


def test_those_that_wait_come_in_turns() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask("first", 4)
        await crowd.ask("second", 2)
        await crowd.ask(NOISY, 2)
        await crowd.ask(QUIET, 1)
        assert sorted(crowd.running) == ["first"] * 4 + ["second"] * 2
        await crowd.end("first", 2)
        assert sorted(crowd.running) == ["first"] * 2 + [NOISY, QUIET] + ["second"] * 2

    _scene(play)


def test_a_turn_that_does_not_come_is_refused_and_one_that_is_given_up_is_forgotten() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask(NOISY, 6)
        crowd.tasks[4].cancel()
        await asyncio.wait([crowd.tasks[5]], timeout=2)
        assert (crowd.refused, crowd.gate.waiting) == (1, 0)

    _scene(play, Bounds(running=6, alone=4, waiting=8, patience_s=0.05))


def test_a_request_that_is_given_up_as_its_turn_comes_leaves_its_place() -> None:
    async def play(crowd: _Crowd) -> None:
        await crowd.ask(NOISY, 5)
        crowd._ends[NOISY][0].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        crowd.tasks[4].cancel()
        await asyncio.sleep(0)

    _scene(play)


def test_large_bodies_are_bounded_together() -> None:
    gate = Gate(Bounds(body_bytes=100))
    gate.take(60)
    with pytest.raises(FhirError) as refused:
        gate.take(60)
    assert refused.value.status == 503
    gate.take(-60)
    gate.take(60)


def _raw(path: str, body: bytes = b"") -> bytes:
    method = b"POST" if body else b"GET"
    return (
        b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n%b"
        % (method, path.encode(), len(body), body)
    )


def test_a_server_that_is_full_says_so_at_once_and_serves_others(
    server: Server, database: Database, clinic: Clinic
) -> None:
    """Bookings that wait for a lock fill a tenant's share; what comes then is told to come again, in milliseconds."""
    slot = clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z")
    request = _raw(f"/fhir/{clinic.tenant}/Appointment", json.dumps(appointment(slot)).encode())
    bounds = Bounds()
    port = int(server.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        crowd, late = (
            [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(number)]
            for number in (bounds.alone + WAITING_ALONE, 60)
        )
        holder = stack.enter_context(database.connect_admin())
        stack.enter_context(holder.transaction())
        holder.execute("select from slots where id = %s for update", [slot["id"].removeprefix("slt-")])
        for client in crowd:
            client.sendall(request)
        _wait_for(server, "fhir_sched_requests_waiting", WAITING_ALONE)
        took = [_refused(client, request) for client in late]
        assert sorted(took)[len(took) // 2] < 0.02
        with server.fhir(uuid4()) as others:
            assert others.get(f"Slot/slt-{uuid4()}").status_code == 404
    _wait_for(server, "fhir_sched_requests_running", 0)
    assert clinic.http.get(f"Slot/{slot['id']}").status_code == 200


def _refused(client: socket.socket, request: bytes) -> float:
    """How long the refusal of a request takes, in seconds."""
    client.settimeout(5)
    began = time.perf_counter()
    client.sendall(request)
    answer = client.recv(65536)
    took = time.perf_counter() - began
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert b"\r\nretry-after: 1\r\n" in answer
    assert b"\r\nx-request-id: " in answer
    assert b'"resourceType":"OperationOutcome"' in answer
    return took


def _wait_for(server: Server, metric: str, value: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = server.client.get("/metrics").text.splitlines()
        if f"{metric} {value:.1f}" in lines:
            return
        time.sleep(0.01)
    raise AssertionError([line for line in lines if line.startswith("fhir_sched_requests_")])
