"""A real nats-server with JetStream, and what its streams hold."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import api

_WHERE = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"])


def program() -> str:
    """Path of nats-server, installed from Debian where root may; skips the test where it cannot be had."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-qq", "nats-server"]
        subprocess.run(command, timeout=120, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        found = _found()
    if found is None:
        # a real broker or none: it is a program of Debian's, which a user without root can't be given from PyPI
        pytest.skip("nats-server is not installed and cannot be: apt-get install nats-server")
    return found


def _found() -> str | None:
    return shutil.which("nats-server") or shutil.which("nats-server", path=_WHERE)


@dataclass
class Stored:
    """A message of a stream."""

    subject: str
    id: str
    event: dict[str, Any]


class Broker:
    """The server at `url`, on a port that it keeps."""

    def __init__(self, folder: Path) -> None:
        self._program, self._folder, self._port = program(), folder, -1
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        ports = self._folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        command = [self._program, "-js", "-sd", str(self._folder / "data"), "-a", "127.0.0.1", "-p", str(self._port)]
        self._process = subprocess.Popen(
            [*command, "--ports_file_dir", str(ports)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while not (files := list(ports.glob("*.ports"))) or not files[0].read_text():
            assert time.monotonic() < until, "nats-server did not start"
            time.sleep(0.02)
        self._port = int(json.loads(files[0].read_text())["nats"][0].rpartition(":")[2])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(15)
            self._process = None

    def stored(self, subjects: str) -> list[Stored]:
        """Every message of the stream that takes these subjects, in its order."""
        return asyncio.run(self._stored(subjects))

    async def _stored(self, subjects: str) -> list[Stored]:
        client = await nats.connect(self.url)
        try:
            stream = client.jetstream()
            name = await stream.find_stream_name_by_subject(subjects)
            found = []
            state = (await stream.stream_info(name)).state
            for sequence in range(state.first_seq, state.last_seq + 1):
                message = await stream.get_msg(name, sequence)
                headers = message.headers or {}
                found.append(Stored(message.subject or "", headers["Nats-Msg-Id"], json.loads(message.data or b"{}")))
            return found
        finally:
            await client.close()

    def make(self, name: str, *subjects: str) -> None:
        """Make a stream, as the broker's operator does."""

        async def work() -> None:
            client = await nats.connect(self.url)
            await client.jetstream().add_stream(api.StreamConfig(name=name, subjects=list(subjects)))
            await client.close()

        asyncio.run(work())

    def streams(self) -> dict[str, list[str]]:
        """Subjects of each stream by its name."""

        async def work() -> dict[str, list[str]]:
            client = await nats.connect(self.url)
            infos = await client.jetstream().streams_info()
            await client.close()
            return {str(info.config.name): list(info.config.subjects or []) for info in infos}

        return asyncio.run(work())


@contextmanager
def started(folder: Path) -> Iterator[Broker]:
    """A broker for as long as the block runs."""
    broker = Broker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
