"""Starting PostgreSQL from a root process: it refuses to run as root, so its processes get another user.

The user is the owner of an existing data directory, else `nobody`. Where that user could not walk to the binaries or
the data (both below /root, say), the processes keep one Linux capability that lets them search directories; no mode of
a directory above the data is ever changed. Knows nothing of PostgreSQL itself.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_SECUREBITS: Final = 28
_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522
# Any of the two lets a process search directories; containers tend to grant the first.
_CAP_DAC_OVERRIDE: Final = 1
_CAP_DAC_READ_SEARCH: Final = 2
_CAP_SETPCAP: Final = 8


class PrivilegeError(Exception):
    """No user can be found that could run PostgreSQL, or it cannot reach the files."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that PostgreSQL's processes run as, and the capability that they need to reach their files."""

    uid: int
    gid: int
    capability: int | None = None


def identity_for(data: Path, *needed: Path) -> Identity | None:
    """Whom to run as so that `data` and the `needed` paths can be reached; None when this process need not change.

    Raises PrivilegeError when this is root and nobody else can be.
    """
    if os.geteuid() != 0:
        return None
    owner = data.stat() if data.exists() else None
    if owner is not None and owner.st_uid != 0:
        uid, gid = owner.st_uid, owner.st_gid
    else:
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise PrivilegeError(
                "PostgreSQL does not run as root and there is no user 'nobody' to run it as: start as another user"
            ) from None
        uid, gid = entry.pw_uid, entry.pw_gid
    blocked = next((path for path in (data, *needed) if not _reachable_by_others(path)), None)
    if blocked is None:
        return Identity(uid, gid)
    capability = _directory_capability()
    if capability is None:
        raise PrivilegeError(
            f"PostgreSQL does not run as root, and the user {uid} that would run it cannot reach {blocked}: "
            "start as another user, or install and keep the data where every user may search the directories"
        )
    return Identity(uid, gid, capability)


def become(identity: Identity | None, *, dies_with_parent: bool) -> Callable[[], None]:
    """What a child process does between fork and exec: take the identity, and ask for SIGINT when the parent dies.

    SIGINT is PostgreSQL's fast shutdown, so that even a killed server leaves a clean data directory.
    """
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        if identity is not None:
            if library is not None and identity.capability is not None:
                # Keeps capabilities over setuid, and lets access(2), by which PostgreSQL finds its programs, use them.
                _check(library.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
            os.setgroups([])
            os.setgid(identity.gid)
            os.setuid(identity.uid)
            if library is not None and identity.capability is not None:
                _keep_only(library, identity.capability)
        os.umask(0o077)
        if library is not None and dies_with_parent:
            # After the change of user, which would clear it.
            _check(library.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0))
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def end_with_parent(parent: int) -> None:
    """Ask for SIGTERM when the process `parent` dies, at once if it is dead (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def own(path: Path, identity: Identity | None) -> None:
    """Create the directory `path` for that user alone (mode 0700), or hand over an existing one."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if identity is not None and path.stat().st_uid != identity.uid:
        os.chown(path, identity.uid, identity.gid)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)


def _reachable_by_others(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents if parent.exists())


def _directory_capability() -> int | None:
    if sys.platform != "linux":
        return None
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if not effective >> _CAP_SETPCAP & 1:
        return None
    held = (capability for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if effective >> capability & 1)
    return next(held, None)


def _keep_only(library: ctypes.CDLL, capability: int) -> None:
    """Drop every capability but one, which survives the exec as an ambient one (capabilities(7))."""
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two blocks of 32 capabilities, each: effective, permitted, inheritable.
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _check(library.capset(header, data))
    _check(library.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
