"""Runs pgbench: the one of the embedded PostgreSQL's package, with the session settings that the server uses."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_sched.db import embedded
from fhir_sched.db.limits import Limits

if TYPE_CHECKING:
    from bench.catching import Script


@dataclass(frozen=True)
class Limit:
    """What PostgreSQL alone can do: transactions a second, latencies in ms."""

    tps: float
    p50_ms: float
    p99_ms: float


def run(url: str, script: Script, *, clients: int, seconds: float, rate: float = 0) -> Limit:
    """The script with prepared statements, each transaction one pipeline and so one round trip.

    With a `rate` transactions begin at so many a second, by chance; latencies count from when they should have begun.
    """
    settings = Limits().session(read_only=False, steady=script.steady)
    options = " ".join(f"-c {name}={value}" for name, value in settings.items()).replace("read c", "read\\ c")
    pace = ["-R", str(rate)] if rate else []
    constants = [part for name, value in script.constants.items() for part in ("-D", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "script.sql")
        path.write_text(script.text)
        command: list[str | Path] = [embedded.binaries() / "pgbench", "-n", "-M", "prepared", "-f", path, "-j", "1"]
        command += ["-c", str(clients), "-T", str(round(seconds)), "-l", "--log-prefix", Path(directory, "log")]
        done = subprocess.run(
            [*command, *pace, *constants, url],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PGOPTIONS": options},
        )
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        if done.returncode != 0 or found is None or "aborted" in done.stderr:
            raise RuntimeError(f"pgbench failed:\n{done.stderr[-2000:]}\n{script.text}")
        latencies = sorted(int(line.split()[2]) for log in Path(directory).glob("log.*") for line in log.open())
    count = len(latencies)
    return Limit(float(found[1]), latencies[count // 2] / 1000, latencies[int(count * 0.99)] / 1000)
