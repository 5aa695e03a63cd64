"""A load generator: raw HTTP/1.1 over keep-alive connections, as little work for each request as Python allows.

One thread, one epoll, requests prepared beforehand: about 10 us of this machine's time a request, which the server and
PostgreSQL do not have then. The figures it brings are therefore a little too low, never too high.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What came of it: requests a second, latencies in ms, CPU time of the generator in us a request."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    generator_us: float


class UnexpectedAnswerError(Exception):
    """The server answered something else than the benchmark is about."""


def drive(port: int, requests: list[bytes], *, status: bytes, connections: int, seconds: float) -> Load:
    """Keep that many requests in flight until the time or the requests run out."""
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(min(connections, len(requests))):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        sockets[one.fileno()] = one
        poll.register(one, select.EPOLLIN)
    gc.collect()
    gc.disable()
    try:
        return _run(poll, sockets, requests, status, seconds)
    finally:
        gc.enable()
        poll.close()
        for one in sockets.values():
            one.close()


def _run(
    poll: select.epoll, sockets: dict[int, socket.socket], requests: list[bytes], status: bytes, seconds: float
) -> Load:
    clock = time.perf_counter
    cpu = time.process_time()
    started = clock()
    deadline = started + seconds
    queue = iter(requests)
    sent: dict[int, float] = {}
    partial: dict[int, bytearray] = {}
    missing: dict[int, int] = {}
    latencies: list[float] = []
    for number, one in sockets.items():
        _send(one, next(queue))
        sent[number] = clock()
    while sent:
        for number, _ in poll.poll(10):
            one = sockets[number]
            data = one.recv(262_144)
            if number in partial:
                partial[number] += data
                missing[number] -= len(data)
                if missing[number] > 0 and data:
                    continue
                del partial[number]
            else:
                if data[9:12] != status:
                    raise UnexpectedAnswerError(data[:1500].decode(errors="replace") or "the connection was closed")
                body = data.index(b"\r\n\r\n") + 4
                length = data.index(b"content-length: ", 0, body) + 16
                left = int(data[length : data.index(b"\r", length)]) - len(data) + body
                if left > 0:
                    partial[number] = bytearray(data)
                    missing[number] = left
                    continue
            now = clock()
            latencies.append(now - sent[number])
            request = next(queue, None) if now < deadline else None
            if request is None:
                del sent[number]
            else:
                sent[number] = now
                _send(one, request)
    took = clock() - started
    cpu = time.process_time() - cpu
    latencies.sort()
    count = len(latencies)
    return Load(
        count,
        count / took,
        latencies[count // 2] * 1000,
        latencies[min(count - 1, int(count * 0.99))] * 1000,
        cpu / count * 1e6,
    )


def _send(one: socket.socket, request: bytes) -> None:
    """All of the request; only a long one has to wait for the server to read."""
    done = one.send(request)
    if done < len(request):
        one.setblocking(True)
        one.sendall(request[done:])
        one.setblocking(False)
