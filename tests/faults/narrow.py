"""The real server with one lane of each kind and short time-outs, where tenants meet at every turn."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx

from fhir_sched.db import lanes
from fhir_sched.db.limits import Limits
from fhir_sched.settings import PREFIX
from server import Server, main

_TESTS = Path(__file__).parents[1]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_TESTS)!r}); from faults.narrow import narrow; narrow()"


class NarrowServer(Server):
    """A server process with two lanes."""

    def start(self) -> None:
        """Start it and wait until it listens."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        given = {PREFIX + name.upper(): value for name, value in self.settings.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], env={**bare, **given}, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, f"the server ended with {self._process.wait(10)}; what it said is above"
        self.client = httpx.Client(base_url=self.url, timeout=30)


def narrow() -> None:
    """Serve by the settings in the environment, with these limits."""
    limits = partial(Limits, shared=1, exclusive=1, statement_timeout_s=0.4, lock_timeout_s=5.0, queue_timeout_s=1.0)
    lanes.__dict__["Limits"] = limits
    main()
