"""Clients that are slow to send or to read: each loses its own connection, in time, and holds nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from fhir_sched.http import protocol
from fhir_sched.http.protocol import Protocol

BIG = 20_000_000
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("HEAD_S", 0.2), ("BODY_S", 0.3), ("_LOOK_S", 0.02)):
        monkeypatch.setattr(protocol, name, seconds)
    monkeypatch.setattr(Protocol, "_patience_s", 0.2, raising=False)


async def _app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """Reads the whole request; answers `ok`, or something large on /big."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    if message["type"] == "http.disconnect":
        return
    body = bytes(BIG) if scope["path"] == "/big" else b"ok"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[Callable[[], Awaitable[Client]], ServerState]]:
    config = Config(_app, http=Protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield lambda: asyncio.open_connection("127.0.0.1", port), state
    finally:
        server.close()


def _play(scene: Callable[[Callable[[], Awaitable[Client]], ServerState], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with _served() as (connect, state):
            await asyncio.wait_for(scene(connect, state), 20)

    asyncio.run(whole())


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", b""),
        (b"GET / HTT", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 408 "),
    ],
)
def test_who_does_not_go_on_is_told_so_and_let_go(sent: bytes, said: bytes) -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(sent)
        answer = await reader.read()
        assert answer[: len(said)] == said
        assert (b'"resourceType":"OperationOutcome"' in answer) == bool(said)
        writer.close()

    _play(scene)


@pytest.mark.parametrize("head", [b"", b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\n"])
def test_a_byte_now_and_then_does_not_help(head: bytes) -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(head)
        dripping = asyncio.create_task(_drip(writer, GET * 3))
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()

    _play(scene)


def test_who_does_not_read_its_answer_is_cut_off_and_the_memory_freed() -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        _, deaf = await connect()
        deaf.write(GET.replace(b"/", b"/big", 1))
        reader, writer = await connect()
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        while state.connections:  # noqa: ASYNC110 - uvicorn's set of connections tells nobody
            await asyncio.sleep(0.01)
        deaf.close()

    _play(scene)


def test_who_reads_slowly_but_reads_gets_all_of_it() -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(GET.replace(b"/", b"/big", 1))
        await reader.readuntil(b"\r\n\r\n")
        left = BIG
        while left:
            left -= len(await reader.readexactly(min(left, 1_000_000)))
            await asyncio.sleep(0.04)
        writer.close()

    _play(scene)


def test_a_connection_is_good_for_many_requests_whatever_time_they_take_together() -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        reader, writer = await connect()
        for _ in range(20):
            writer.write(GET)
            await reader.readuntil(b"ok")
            await asyncio.sleep(0.03)
        writer.close()

    _play(scene)


def test_more_headers_than_anybody_needs_are_refused() -> None:
    async def scene(connect: Callable[[], Awaitable[Client]], state: ServerState) -> None:
        reader, writer = await connect()
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(protocol.MAX_HEADERS))
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n%b\r\n" % many)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"100 headers" in answer
        writer.close()

    _play(scene)


class _Stream:
    """An answer in pieces, and what became of it: `made` counts them, `closed` says that nobody asks for more."""

    def __init__(self, pieces: int, size: int, failing: bool = False) -> None:
        self.pieces, self.size, self.failing = pieces, size, failing
        self.made, self.closed = 0, asyncio.Event()

    async def direct(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> tuple[bytes, Any, bool]:
        """What the application hands over."""
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n", self._made(), False

    async def _made(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.pieces):
                self.made += 1
                yield b"x" * self.size
                await asyncio.sleep(0)
            if self.failing:
                raise RuntimeError("the rows have gone")
        finally:
            self.closed.set()


def _play_stream(stream: _Stream, scene: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
    async def whole() -> None:
        config = Config(_app, http=Protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        made = {"direct": stream.direct}
        server = await asyncio.get_running_loop().create_server(
            lambda: Protocol(config, ServerState(), made), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1000)
            writer.write(GET)
            await asyncio.wait_for(scene(reader, writer), 20)
            writer.close()

    asyncio.run(whole())


def test_pieces_come_as_chunks_and_the_connection_is_good_for_more() -> None:
    stream = _Stream(pieces=3, size=5)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"\r\n\r\n" + 3 * b"5\r\nxxxxx\r\n" + b"0\r\n\r\n")
            writer.write(GET)

    _play_stream(stream, scene)


def test_who_does_not_read_gets_no_more_pieces_made_and_is_let_go() -> None:
    stream = _Stream(pieces=1000, size=1_000_000)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stream.closed.wait()
        assert stream.made < 100

    _play_stream(stream, scene)


def test_who_goes_stops_the_making_of_pieces() -> None:
    stream = _Stream(pieces=1000, size=100_000)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await stream.closed.wait()
        assert stream.made < 1000

    _play_stream(stream, scene)


def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    stream = _Stream(pieces=2, size=5, failing=True)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await reader.read(1_000_000)
        except ConnectionResetError:
            return
        assert not answer.endswith(b"0\r\n\r\n")
        assert not await reader.read(1)

    _play_stream(stream, scene)
