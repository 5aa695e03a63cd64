"""Idempotency-Key: a request that is sent again gets the first answer and changes nothing more.

Keys belong to a tenant and a caller and live 24 hours. The key is claimed, the work done and the answer kept in one
transaction, so that of two at once the second waits and then replays. A refusal that depends on the state of the data
(404, 409, 410, 412, 422) is kept as well. After the draft HTTP header field of that name. Knows no interaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import orjson

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.outcome import FhirError, Kind, operation_outcome

MAX_KEY = 255
_KEPT_REFUSALS = frozenset({404, 409, 410, 412, 422})

_CLAIM = """
insert into idempotent_requests as r (tenant_id, caller, key, fingerprint)
values ($1::uuid, $2::uuid, $3, $4)
on conflict (tenant_id, caller, key) do update
set fingerprint = excluded.fingerprint, created_at = excluded.created_at, status = null, answer = null, body = null
where r.created_at < now() - interval '24 hours'
returning r.key"""
_FIND = """
select r.fingerprint, r.status, r.answer, r.body
from idempotent_requests r
where r.tenant_id = $1::uuid
  and r.caller = $2::uuid
  and r.key = $3"""
_KEEP = """
update idempotent_requests r
set status = $4::integer, answer = $5::jsonb, body = $6
where r.tenant_id = $1::uuid
  and r.caller = $2::uuid
  and r.key = $3"""
_SWEEP = """
delete from idempotent_requests r
where r.tenant_id = $1::uuid
  and r.key in (
      select old.key
      from idempotent_requests old
      where old.tenant_id = $1::uuid
        and old.created_at < now() - interval '24 hours'
      order by old.created_at
      limit 20
      for update skip locked
  )
  and r.created_at < now() - interval '24 hours'"""


def fingerprint(*parts: bytes) -> str:
    """What tells one request from another under the same key: method, URL and body, hashed."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def checked_key(text: str) -> str:
    """The key of the header. Raises 400 for one that is empty, too long or has unprintable characters."""
    key = text.strip().strip('"')
    if not key or len(key) > MAX_KEY or not key.isprintable():
        raise FhirError(Kind.VALUE, f"Idempotency-Key must have 1 to {MAX_KEY} printable characters")
    return key


async def once(context: Context, key: str, mark: str, work: Callable[[Context], Awaitable[Answer]]) -> Answer:
    """What `work` answers, or what it answered the first time. Raises 422 for the same key on another request."""
    name = (context.tenant.encode(), context.subject.encode(), key.encode())

    async def claimed(database: Work) -> Answer:
        (rows,) = await database.write(Fragment(_CLAIM, (*name, mark.encode())))
        if not rows.ntuples:
            return await _first_answer(database, name, mark)
        answer = await work(replace(context, work=database))
        sweep = Fragment(_SWEEP, name[:1])
        await database.write(_kept(name, answer), sweep)
        return answer

    try:
        return await context.work.atomically(claimed)
    except FhirError as error:
        if error.status in _KEPT_REFUSALS and not isinstance(error, ReplayedError):
            await _keep_refusal(context, name, mark, error)
        raise


class ReplayedError(FhirError):
    """A refusal that was given before, or that is about the key itself."""


async def _first_answer(database: Work, name: tuple[bytes, ...], mark: str) -> Answer:
    (rows,) = await database.read(Fragment(_FIND, name))
    row = rows.first()
    if row is None or row[1] is None or row[0] is None:
        raise FhirError(Kind.LOCK, "a request with this Idempotency-Key is not finished; please try again")
    if row[0].decode() != mark:
        raise ReplayedError(Kind.BUSINESS_RULE, "this Idempotency-Key was used for another request; use a new one")
    said = orjson.loads(row[2] or b"{}")
    return Answer(
        int(row[1]),
        row[3] or b"",
        _bytes(said.get("version")),
        _bytes(said.get("modified")),
        said.get("location", ""),
        (("Idempotent-Replayed", "true"),),
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _kept(name: tuple[bytes, ...], answer: Answer) -> Fragment:
    said = {
        "version": None if answer.version is None else answer.version.decode(),
        "modified": None if answer.modified is None else answer.modified.decode(),
        "location": answer.location,
    }
    return Fragment(_KEEP, (*name, str(answer.status).encode(), orjson.dumps(said), answer.body))


async def _keep_refusal(context: Context, name: tuple[bytes, ...], mark: str, error: FhirError) -> None:
    """Kept after the rollback; when another request has claimed the key meanwhile, that one's answer stands."""
    body = orjson.dumps(operation_outcome(error.issues))
    refused = Answer(error.status, body)

    async def keep(database: Work) -> Answer:
        (rows,) = await database.write(Fragment(_CLAIM, (*name, mark.encode())))
        if rows.ntuples:
            await database.write(_kept(name, refused))
        return refused

    await context.work.atomically(keep)
