"""An embedded PostgreSQL below a directory of ours: made, started, stopped, taken over after a crash.

Law: one process owns the cluster, told by a lock on `DATA_DIR/lock` that the kernel drops with the process; whatever
PostgreSQL still runs there then is a leftover and is shut down first. Connections go through a Unix socket in a
directory that only this user can enter; there is no TCP port. Knows nothing of what is stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self
from urllib.parse import quote

import psutil
import psycopg

from fhir_sched.db.cluster import OWNER, EmbeddedError, binaries, check_version, environment, last_words, make, open_log
from fhir_sched.db.privileges import Identity, PrivilegeError, become, identity_for, own

DATABASE: Final = "fhir_sched"
APP_ROLE: Final = "fhir_sched_app"
_PORT: Final = 5432
# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_SOCKET_PATH_BYTES: Final = 103
_SERVER_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "wal_compression": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_checkpoints": "off",
    # An error's statement can hold a patient's data.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass
class Embedded:
    """A running cluster; a context manager that stops it when this process is the one that started it."""

    data_dir: Path
    socket_dir: Path
    owner_lock: IO[str] | None = None
    process: subprocess.Popen[bytes] | None = None
    server_settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    _stopped: bool = field(default=False, repr=False)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def url(self, user: str = APP_ROLE, database: str = DATABASE) -> str:
        """libpq URL of a database of the cluster for one of its roles."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket_dir), safe='')}&port={_PORT}"

    @property
    def admin_url(self) -> str:
        """libpq URL of the owner of everything."""
        return self.url(OWNER)

    @property
    def app_url(self) -> str:
        """libpq URL of the role that serves requests."""
        return self.url(APP_ROLE)

    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Shut down (fast: sessions are ended, what is committed is written) if this process started the cluster."""
        with self._changing:
            if self._stopped:
                return
            self._stopped = True
        if self.process is not None:
            _shut_down(psutil.Process(self.process.pid) if self.process.poll() is None else None)
            self.process.wait()
        if self.owner_lock is not None:
            self.owner_lock.close()

    def restart(self) -> bool:
        """Start the cluster again after it has ended by itself; False when it was stopped. Raises EmbeddedError.

        What it had committed is there: PostgreSQL recovers from its log.
        """
        with self._changing:
            if self._stopped or self.process is None:
                return False
            _launch(self, identity_for(self.data_dir / "postgres", binaries() / "postgres"))
        return True


def start(
    data_dir: Path,
    *,
    purpose: str = "fhir-sched",
    exclusive: bool = True,
    server_settings: Mapping[str, str] | None = None,
    lock_timeout_s: float = 6.0,
) -> Embedded:
    """The cluster below `data_dir`, made when it is not there, ready for connections; database and owner exist.

    With `exclusive` a cluster that another process owns is refused, after `lock_timeout_s` for it to end; otherwise
    that cluster is used as it runs. Raises EmbeddedError.
    """
    try:
        return _start(
            data_dir.absolute(), purpose, exclusive, {**_SERVER_SETTINGS, **(server_settings or {})}, lock_timeout_s
        )
    except PrivilegeError as error:
        raise EmbeddedError(str(error)) from None
    except OSError as error:
        raise EmbeddedError(f"the embedded PostgreSQL cannot use {data_dir}: {error}") from error


def _start(
    data_dir: Path,
    purpose: str,
    exclusive: bool,
    server_settings: Mapping[str, str],
    lock_timeout_s: float,
) -> Embedded:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    cluster = data_dir / "postgres"
    identity = identity_for(cluster, binaries() / "postgres")
    socket_dir = _socket_dir(data_dir, identity)
    lock = _lock(data_dir / "lock", purpose, exclusive, lock_timeout_s)
    if lock is None:
        running = Embedded(data_dir, socket_dir)
        _wait_ready(running, timeout_s=30)
        return running
    started = Embedded(data_dir, socket_dir, lock, server_settings=server_settings)
    try:
        if not (cluster / "PG_VERSION").exists():
            make(cluster, identity)
        check_version(cluster)
        own(cluster, identity)
        own(socket_dir, identity)
        _launch(started, identity)
        _ensure_database(started)
    except BaseException:
        started.stop()
        raise
    return started


def _launch(embedded: Embedded, identity: Identity | None) -> None:
    """Start the process and wait until it takes connections."""
    cluster = embedded.data_dir / "postgres"
    _clear_leftovers(cluster)
    with open_log(embedded.data_dir / "postgres.log") as log:
        embedded.process = subprocess.Popen(
            [
                binaries() / "postgres",
                *("-D", cluster, "-k", embedded.socket_dir, "-p", str(_PORT)),
                *(part for name, value in embedded.server_settings.items() for part in ("-c", f"{name}={value}")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A session of its own: Ctrl-C in the terminal is for the server, which ends PostgreSQL last.
            start_new_session=True,
            preexec_fn=become(identity, dies_with_parent=True),  # noqa: PLW1509 - it only makes system calls
            env=environment(),
            cwd="/",
        )
    _wait_ready(embedded, timeout_s=60)


def _socket_dir(data_dir: Path, identity: Identity | None) -> Path:
    """A directory whose socket's path is short enough: below `data_dir`, else one in the temporary directory."""
    preferred = data_dir / "socket"
    if len(os.fsencode(preferred / f".s.PGSQL.{_PORT}")) <= _SOCKET_PATH_BYTES:
        return preferred
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"fhir-sched-{os.geteuid()}-{digest}"
    own(directory, identity)
    expected = os.geteuid() if identity is None else identity.uid
    if directory.is_symlink() or directory.stat().st_uid != expected:
        raise EmbeddedError(f"{directory} belongs to somebody else: choose a shorter FHIR_SCHED_DATA_DIR")
    return directory


def _lock(path: Path, purpose: str, exclusive: bool, timeout_s: float) -> IO[str] | None:
    """The lock of the owner; None when another process has it and sharing is wanted."""
    handle = path.open("a+", encoding="utf-8")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if exclusive and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            if not exclusive:
                return None
            raise EmbeddedError(
                f"the data in {path.parent} are in use by {holder}: stop it, or set FHIR_SCHED_DATA_DIR to another "
                "directory, or point FHIR_SCHED_DATABASE_URL at a PostgreSQL that several servers can share"
            ) from None
        handle.truncate(0)
        handle.write(f"{purpose} (pid {os.getpid()})\n")
        handle.flush()
        return handle


def _clear_leftovers(cluster: Path) -> None:
    """End a server that outlived its owner; remove a pid file whose number now belongs to something else.

    We hold the owner's lock, so no live fhir-sched wants that server.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text(encoding="ascii").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # The postmaster works inside its data directory.
        if process.name().startswith("postgres") and Path(process.cwd()) == cluster.resolve():
            _shut_down(process)
            return
    pid_file.unlink(missing_ok=True)


def _shut_down(process: psutil.Process | None) -> None:
    """Fast shutdown, then an immediate one (which the next start recovers from), then the end."""
    if process is None:
        return
    for sent, patience_s in ((signal.SIGINT, 8.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        try:
            process.send_signal(sent)
            process.wait(patience_s)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        return


def _wait_ready(embedded: Embedded, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(embedded.url(OWNER, "postgres"), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            ended = embedded.process is not None and embedded.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the embedded PostgreSQL did not start: {last_words(embedded.data_dir) or error}"
                ) from None
            time.sleep(0.02)
        else:
            return


def _ensure_database(embedded: Embedded) -> None:
    with psycopg.connect(embedded.url(OWNER, "postgres"), autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(f"create database {DATABASE}")


@contextlib.contextmanager
def running(data_dir: Path, *, purpose: str) -> Iterator[Embedded]:
    """The cluster as a context, shared with whoever runs it, for commands that need the database only for a moment."""
    with start(data_dir, purpose=purpose, exclusive=False) as embedded:
        yield embedded


__all__ = ["APP_ROLE", "DATABASE", "OWNER", "Embedded", "EmbeddedError", "binaries", "running", "start"]
