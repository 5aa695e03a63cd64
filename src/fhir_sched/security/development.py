"""A key of one's own for trying out: tokens without an authorization server, on this machine alone.

The key lies in DATA_DIR, readable by its owner only, and is made when it is first needed. A server trusts it only with
DEV_KEY, and never on an address that others can reach. RFC 9068 (what is in the tokens). Knows no request.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from fhir_sched import document
from fhir_sched.outcome import FhirError
from fhir_sched.reference import is_uuid
from fhir_sched.security import scopes
from fhir_sched.security.claims import ClaimError, caller
from fhir_sched.security.fetching import FetchError
from fhir_sched.settings import Settings

ISSUER: Final = "urn:fhir-sched:development"
FILE: Final = "development-key.json"
_ALGORITHM: Final = "ES256"


def mint(data_dir: Path, claims: dict[str, Any], expires_in_s: int) -> str:
    """A signed token that says what `claims` say, from now on for so long. Raises FetchError for an unusable key."""
    key = _key(data_dir)
    issued = int(time.time())
    whole = {"iss": ISSUER, "iat": issued, "exp": issued + expires_in_s, "jti": str(uuid.uuid4()), **claims}
    return jwt.encode({"alg": _ALGORITHM, "typ": "at+jwt", "kid": key.thumbprint()}, whole, key)


def claims(
    settings: Settings,
    *,
    tenant: str | None,
    scope: str,
    patient: str | None,
    user: str | None,
    subject: str,
    client: str,
) -> dict[str, Any]:
    """What a development token says. Raises ValueError for what no server would accept.

    It names this server as settings of the same kind name it: without AUDIENCE and PUBLIC_URL by its address and port.
    """
    named = str(settings.demo_tenant) if tenant is None else tenant.lower()
    if not is_uuid(named):
        raise ValueError(f"--tenant: a tenant is a UUID, not {named!r}")
    if not scopes.parse(scope):
        raise ValueError(f"--scope: {scope!r} has no scope such as patient/Appointment.rs or user/Slot.cruds")
    told = {"client_id": client, "scope": scope, settings.tenant_claim: named, "sub": subject}
    told |= {name: value for name, value in (("patient", patient), ("fhirUser", user)) if value}
    try:
        who = caller(told, ISSUER)
    except ClaimError as error:
        raise ValueError(f"--patient or --user: {error}") from None
    if not who.patient and any(each.context == "patient" for each in who.scopes):
        raise ValueError("--patient: a patient/ scope needs a patient")
    return {**told, "aud": _audience(settings, named)}


def _audience(settings: Settings, tenant: str) -> str | list[str]:
    if settings.audience:
        return settings.audience
    if settings.public_url:
        return f"{settings.public_url}/fhir/{tenant}"
    host = f"[{settings.host}]" if ":" in settings.host and "[" not in settings.host else settings.host
    hosts = dict.fromkeys((host, "127.0.0.1", "localhost"))
    return [f"http://{each}:{settings.port}/fhir/{tenant}" for each in hosts]


async def key_set(data_dir: Path) -> dict[str, Any]:
    """The JWK set of the development key. Raises FetchError for an unusable key."""
    key = await asyncio.to_thread(_key, data_dir)
    return {"keys": [{**key.as_dict(private=False), "kid": key.thumbprint()}]}


def _key(data_dir: Path) -> ECKey:
    """The key in the file, which is made if there is none."""
    path = data_dir / FILE
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise FetchError(f"{path} can be read by others: chmod 600 it, or remove it and another one is made")
        return ECKey.import_key(document.parse(path.read_bytes()))
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror}") from None
    except (FhirError, JoseError, ValueError):
        raise FetchError(f"{path} holds no key: remove it and another one is made") from None


def _make(path: Path) -> None:
    """Write a new key, complete or not at all; of two programs at once one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{FILE}.{os.getpid()}.{uuid.uuid4().hex}")
    key = ECKey.generate_key("P-256")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(document.dumps(key.as_dict(private=True)))
        try:
            os.link(made, path)
        except FileExistsError:
            return
    finally:
        made.unlink(missing_ok=True)
