"""The real server for tests: uvicorn with one worker, in a process of its own, on a database of the test cluster.

What it lacks beside `fhir-sched serve` is the doctor's look at the database, which refuses the test cluster: it does
without durability.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx

import received
from fhir_sched import journal, serving
from fhir_sched.settings import PREFIX, load

FHIR_JSON = "application/fhir+json"
_HOOKS: Mapping[str, list[Callable[..., Any]]] = {"response": [received.keep]}


class Server:
    """A server process; `url` is its root and `client` an httpx client of that root.

    What it writes to stderr goes to the file `log`, or where that of the tests goes. The audit log is written every
    `journal_every_s`.
    """

    log: Path | None = None
    journal_every_s = journal.EVERY_S

    def __init__(self, database_url: str, **settings: str) -> None:
        self.settings = {"auth": "open", "port": "0", "database_url": database_url, "log_level": "warning", **settings}
        self.url = ""
        self.client: httpx.Client
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        given = {PREFIX + name.upper(): value for name, value in self.settings.items()}
        with contextlib.ExitStack() as stack:
            stderr = stack.enter_context(self.log.open("ab")) if self.log else None
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(self.journal_every_s)],
                env={**bare, **given},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, f"the server ended with {self._process.wait(10)}; what it said is above"
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"Accept": FHIR_JSON}, event_hooks=_HOOKS)

    def stop(self) -> int:
        """End it as an operator does, by SIGTERM; its exit code."""
        assert self._process is not None
        self.client.close()
        self._process.terminate()
        try:
            return self._process.wait(15)
        finally:
            self._process.kill()
            self._process.communicate()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    def base(self, tenant: UUID | str) -> str:
        """The FHIR base URL of a tenant."""
        return f"{self.url}/fhir/{tenant}"

    def fhir(self, tenant: UUID | str, **options: Any) -> httpx.Client:
        """A client whose paths are relative to a tenant's base, such as `Slot?status=free`; close it after use."""
        headers = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, **options.pop("headers", {})}
        base_url = f"{self.base(tenant)}/"
        return httpx.Client(base_url=base_url, timeout=30, headers=headers, event_hooks=_HOOKS, **options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def main() -> None:
    """Serve by the settings in the environment and print the root URL once the server listens."""
    settings = load()
    journal.EVERY_S = float(sys.argv[1]) if len(sys.argv) > 1 else journal.EVERY_S
    with serving._listener(settings) as listener, serving._signals_end_the_process():
        port = listener.getsockname()[1]
        serving._run(settings, listener, lambda: print(f"http://{settings.host}:{port}", flush=True))


if __name__ == "__main__":
    main()
