"""Runs the server: the listening socket, the database, the demo data, uvicorn with one process or several.

Law: everything that can be wrong is found before the first request, said in one line, and undone. On SIGINT, SIGTERM or
SIGHUP the requests that were read are answered, then the database ends, within 10 s. Knows nothing of FHIR.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from uvicorn.supervisors import Multiprocess

from fhir_sched import __version__, demo, logs, telemetry
from fhir_sched.db import doctor, embedded, migrations, privileges, replica_doctor, supervision
from fhir_sched.events import setup as events
from fhir_sched.http.admission import Gate
from fhir_sched.publishing import publication
from fhir_sched.security import setup
from fhir_sched.settings import Auth, Settings, load

_NOT_READY_S = 1.5
_KEEP_ALIVE_S = 75
_GRACE_S = 5
_BACKLOG = 2048
_ACCEPTS = 16
# the variable of prometheus_client, which must not be imported before it is set
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"


class StartError(Exception):
    """Why the server does not start; `code` is the exit code: 2 for a setting, 1 for anything else."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def application() -> object:
    """The ASGI application by the settings in the environment; what each server process begins with.

    What the imports made is taken out of the garbage collector's rounds, which would else cost the slowest requests
    three times their time.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        privileges.end_with_parent(parent.pid)
    settings = load()
    sink = logs.configure(settings.log_level)
    if telemetry.wanted(os.environ):
        from fhir_sched.http.traced import create_app
    else:
        from fhir_sched.http.app import create_app
    app = create_app(settings, sink)
    _drain_before_the_end(app.gate)
    gc.collect()
    gc.freeze()
    # Requests make few cycles.
    gc.set_threshold(50_000, 50, 50)
    return app


def _drain_before_the_end(gate: Gate) -> None:
    """On SIGTERM say "not ready" first, where anybody asks or waits for an answer, and only then stop listening.

    Balancers send requests until they have seen that; uvicorn, whose handler this puts off, closes the port at once.
    """
    end, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        again, gate.draining = gate.draining, True
        if not callable(end):
            return
        if again or not (gate.probed or gate.running):
            end(number, frame)
        else:
            loop.call_soon_threadsafe(loop.call_later, _NOT_READY_S, end, number, frame)

    if callable(end):
        signal.signal(signal.SIGTERM, drain)


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def serve(settings: Settings, *, with_demo: bool, say: Callable[[str], None]) -> None:
    """Serve until a signal ends it. Raises StartError, or SystemExit after SIGTERM."""
    wrong = setup.problem(settings) or publication.problem(settings) or events.problem(settings)
    if wrong:
        raise StartError(wrong, code=2)
    logs.configure(settings.log_level)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(settings))
        stack.enter_context(_signals_end_the_process())
        url = settings.database_url or stack.enter_context(_own_database(settings, say)).app_url
        findings = doctor.check(url)
        if settings.replica_url is not None and not findings:
            findings = replica_doctor.mistakes(url, settings.replica_url)
        if findings:
            raise StartError("\n".join(map(str, findings)))
        if with_demo:
            demo.load(url, settings.demo_tenant)
        os.environ.update(settings.model_copy(update={"database_url": url}).environment())
        port = int(listener.getsockname()[1])
        _run(settings, listener, lambda: say(greeting(settings, url, port, with_demo=with_demo)))


def greeting(settings: Settings, url: str, port: int, *, with_demo: bool) -> str:
    """What a newcomer needs: the base URL and, with demo data, three lines to paste."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"{settings.public_url or f'http://{host}:{port}'}/fhir/{settings.demo_tenant}"
    lines = [f"fhir-sched {__version__} is ready. FHIR base URL (Ctrl-C ends it):", "", f"  {base}", ""]
    if settings.auth is Auth.SMART:
        minted = " (`fhir-sched token` makes one)" if settings.dev_key else ""
        return "\n".join([*lines, f"Requests need a bearer token{minted}; see docs/security.md.", ""])
    offered = demo.offer(url, settings.demo_tenant) if with_demo else None
    if offered is not None:
        search, book, see = offered.curl_lines(base)
        lines += ["Search free slots:", "", search, "", "Book one:", "", book, "", "See the appointment:", "", see, ""]
    return "\n".join(lines)


def _own_database(settings: Settings, say: Callable[[str], None]) -> embedded.Embedded:
    """The embedded PostgreSQL, migrated; it ends with the server."""
    database = embedded.start(settings.data_dir, purpose="fhir-sched serve")
    try:
        migrations.migrate(database.admin_url, progress=say)
    except BaseException:
        database.stop()
        raise
    supervision.supervise(database)
    return database


@contextlib.contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(
            f"FHIR_SCHED_HOST: {settings.host!r} is no address of this machine: {error.strerror}", 2
        ) from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise StartError(
                f"cannot listen on {settings.host} port {settings.port} ({error.strerror}): "
                "end what listens there or set FHIR_SCHED_PORT to another port"
            ) from None
        listener.set_inheritable(True)
        yield listener


def _run(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    config = uvicorn.Config(
        "fhir_sched.serving:application",
        factory=True,
        loop="uvloop",
        http="fhir_sched.http.protocol:Protocol",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        log_level="warning",
        server_header=False,
        backlog=_BACKLOG,
        workers=settings.workers,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # libuv takes one connection a turn of the loop from each descriptor, and turns are long when there is much to do.
    listeners = [listener, *(listener.dup() for _ in range(_ACCEPTS // settings.workers - 1))]
    if settings.workers == 1:
        server = _Server(config, announce)
        server.run(listeners)
        if not server.started:
            raise StartError("the server did not start; the log above says why")
    else:
        # From here on connections queue, so that the lines work while the processes still start.
        listener.listen(_BACKLOG)
        announce()
        with tempfile.TemporaryDirectory(prefix="fhir-sched-metrics-") as directory:
            # each process writes its metrics there, so that any of them can show those of all
            os.environ[MULTIPROCESS_DIR] = directory
            Multiprocess(config, sockets=listeners).run()


@contextlib.contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does; uvicorn passes on to us what it has caught."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(0 if number == signal.SIGTERM else 128 + number)

    # nohup ignores SIGHUP on purpose.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
