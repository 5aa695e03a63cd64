"""Starts the embedded PostgreSQL again when it ends although nobody asked it to.

Laws: what was committed is there again, nothing is to be done by hand; a cluster that will not stay up ends the server
with a line that says so, rather than a server without a database. Knows nothing of what is stored.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Final

from fhir_sched.db.cluster import EmbeddedError
from fhir_sched.db.embedded import Embedded

log = logging.getLogger("fhir_sched.db")

_MOST: Final = 5
_WITHIN_S: Final = 60.0


def supervise(database: Embedded) -> None:
    """Watch from a thread until the database is stopped.

    The thread lives as long as the process: on Linux PostgreSQL is told to end with the thread that started it.
    """
    threading.Thread(target=_watch, args=(database,), name="postgres", daemon=True).start()


def _watch(database: Embedded) -> None:
    ends: list[float] = []
    while database.process is not None:
        code = database.process.wait()
        if database.stopped():
            return
        ends = [at for at in ends if at > time.monotonic() - _WITHIN_S] + [time.monotonic()]
        log.error("the embedded PostgreSQL ended by itself (%d); it is started again", code)
        why = f"it ended {len(ends)} times within {_WITHIN_S:.0f} s"
        if len(ends) <= _MOST:
            try:
                if database.restart():
                    continue
            except (EmbeddedError, OSError) as error:
                why = str(error)
            if database.stopped():
                return
        log.critical("the embedded PostgreSQL does not run any more, so the server ends: %s", why)
        os.kill(os.getpid(), signal.SIGTERM)
        return
