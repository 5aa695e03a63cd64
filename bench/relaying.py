"""A relay in a process of its own, as `fhir-sched relay` starts it, beside what is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fhir_sched.db import embedded


@contextmanager
def relay(running: embedded.Embedded, sink: str | None, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """While the block runs: a relay to that sink (None: to Subscriptions alone), with these options of the command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SCHED_")}
    command = [sys.executable, "-c", "from fhir_sched.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "relay", *(["--sink", sink] if sink else []), "--log-level", "error", *options],
        env={**environment, "FHIR_SCHED_DATABASE_URL": running.app_url, "FHIR_SCHED_AUTH": "open"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(15)
