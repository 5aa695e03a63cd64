"""A primary and a standby that streams from it, both durable and of their own, for tests of reads from a replica."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

from fhir_sched.db import embedded, migrations
from fhir_sched.db.cluster import binaries, environment
from fhir_sched.db.embedded import Embedded
from fhir_sched.db.privileges import become, identity_for, own

DELAY_S = 0.05
"""How long the standby keeps each commit back: what does not wait for it reads too early."""


class Pair:
    """`primary` and `standby`, in a new directory each; `standby` replays what is committed `DELAY_S` later."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.primary = embedded.start(directory / "primary", purpose="tests")
        migrations.migrate(self.primary.admin_url)
        self.standby = self._standby()

    def _standby(self) -> Embedded:
        data_dir = self.directory / "standby"
        data_dir.mkdir(mode=0o700)
        cluster = data_dir / "postgres"
        identity = identity_for(cluster, binaries() / "postgres")
        own(cluster, identity)
        done = subprocess.run(
            [
                binaries() / "pg_basebackup",
                *("-d", self.primary.url(embedded.OWNER, "postgres"), "-D", cluster, "-R", "-X", "stream"),
                *("-c", "fast"),
            ],
            preexec_fn=become(identity, dies_with_parent=True),
            env=environment(),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        delay = {"recovery_min_apply_delay": f"{DELAY_S}s", "max_standby_streaming_delay": "0"}
        return embedded.start(data_dir, purpose="tests", server_settings=delay)

    def on_standby(self, statement: str) -> list[tuple[Any, ...]]:
        """What the standby answers its superuser."""
        while True:
            try:
                with psycopg.connect(self.standby.admin_url, autocommit=True) as connection:
                    cursor = connection.execute(statement.encode())
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError as error:
                # replay waits for nobody here, so that it may cancel this too, and while it connects; psycopg does not
                # know the SQLSTATE then
                if "conflict with recovery" not in str(error):
                    raise

    def on_primary(self, statement: str) -> list[tuple[Any, ...]]:
        """What the primary answers its superuser, whom row-level security does not bind."""
        with psycopg.connect(self.primary.admin_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill_standby(self) -> None:
        """End the standby as a power cut does."""
        assert self.standby.process is not None
        postmaster = psutil.Process(self.standby.process.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.standby.process.wait()

    def hang_standby(self, *, hang: bool) -> None:
        """Stop every process of the standby, or let them go on."""
        assert self.standby.process is not None
        postmaster = psutil.Process(self.standby.process.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP if hang else signal.SIGCONT)

    def renew_standby(self) -> None:
        """A standby made anew, after the old one was promoted."""
        self.standby.stop()
        shutil.rmtree(self.directory / "standby")
        self.standby = self._standby()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.standby.stop()
        self.primary.stop()


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until it is."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.02)
