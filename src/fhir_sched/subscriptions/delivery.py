"""Sends to subscribers what they are to hear: handshakes, events in order, heartbeats; keeps how each stands.

Laws: one sender at a time for each subscription, several relays share them; an event counts as delivered when the
endpoint has said 2xx, so it comes at least once and in order; after a kill another sender goes on at once. Five
failures in a row set a subscription to error, a failed handshake does so too; the client alone takes it out of there.
Backport 1.1.0 (channels, error states). Headers of a channel are secrets: they are logged nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final

import psycopg

from fhir_sched import document
from fhir_sched.events.session import Connection, connect, under
from fhir_sched.events.webhook import EndpointError, PostError, Webhooks
from fhir_sched.resources.topics import TOPICS
from fhir_sched.subscriptions import claims, subscriber, told
from fhir_sched.subscriptions.claims import Claimed, Outcome
from fhir_sched.subscriptions.database import Ask, asking
from fhir_sched.subscriptions.notification import Standing, notification
from fhir_sched.subscriptions.tally import FIGURES, Heard
from fhir_sched.xml import to_xml

log = logging.getLogger("fhir_sched.subscriptions")

FAILURES: Final = 5
_AT_ONCE: Final = 32
_LOOK_S: Final = 1.0
_CLEAN_S: Final = 3600.0
_FIGURES_S: Final = 2.0
_GRACE_S: Final = 3.0
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_CHANNEL: Final = "fhir_sched_subscriptions"
_DUE: Final = "select tenant_id::text, due_at, claimed from fhir_sched_tenants_with_notifications()"


class Delivery:
    """The sender of one process: `run` until `stop`; `wake` when there may be something to send.

    `tokens`: whether the server asks for tokens; `keep_days`: after how many days events are removed, 0 for never.
    """

    def __init__(
        self, conninfo: str, webhooks: Webhooks, *, tokens: bool, keep_days: int = 0, tally: Heard | None = None
    ) -> None:
        self._tally = tally or Heard()
        self._counted_at = -_FIGURES_S
        self._conninfo, self._webhooks, self._tokens, self._keep_days = conninfo, webhooks, tokens, keep_days
        self._cleaned_at = -_CLEAN_S
        self._woken = asyncio.Event()
        self._stopping = False
        self._database = asyncio.Lock()
        self._sending: dict[asyncio.Task[None], str] = {}

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Send until `stop`. A lost database is waited for."""
        failures = 0
        while not self._stopping:
            try:
                async with await connect(self._conninfo) as connection, await connect(self._conninfo) as ear:
                    failures = 0
                    listening = asyncio.create_task(self._listen(ear))
                    try:
                        await self._work(connection)
                    finally:
                        listening.cancel()
                        await asyncio.gather(listening, return_exceptions=True)
            except psycopg.Error as error:
                log.warning("deliveries have no database", extra={"fields": {"problem": type(error).__name__}})
            except Exception:
                log.exception("deliveries failed and go on")
            if not self._stopping:
                await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                failures += 1

    async def _listen(self, ear: Connection) -> None:
        """Hear of subscriptions that were asked for; looking every second is the safety net."""
        await ear.execute(f"listen {_CHANNEL}".encode())
        async for _ in ear.notifies():
            self._woken.set()

    async def _work(self, connection: Connection) -> None:
        # Held as long as the session lives: whoever can take it knows that this sender is gone.
        claim = secrets.randbits(62)
        await connection.execute("select pg_advisory_lock(%s)", [claim])
        try:
            while not self._stopping:
                self._woken.clear()
                wait_s = await self._round(connection, claim)
                await self._remove_old(connection)
                await self._count(connection)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait_s)
        finally:
            if self._sending:
                await asyncio.wait(self._sending, timeout=_GRACE_S)
            for task in list(self._sending):
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def _count(self, connection: Connection) -> None:
        """Bring the figures of the tally up to date, now and then."""
        if time.monotonic() < self._counted_at + _FIGURES_S:
            return
        self._counted_at = time.monotonic()
        async with self._database:
            self._tally.stands(await asking(connection)(FIGURES))

    async def _remove_old(self, connection: Connection) -> None:
        """Once an hour, the events that are older than they are kept; not those that are still to be sent."""
        if not self._keep_days or time.monotonic() < self._cleaned_at + _CLEAN_S:
            return
        self._cleaned_at = time.monotonic()
        cursor = await connection.execute("select tenant_id::text from fhir_sched_tenants_with_subscribers()")
        for (tenant,) in await cursor.fetchall():
            left = True
            while left and not self._stopping:
                async with self._transaction(connection, str(tenant)) as ask:
                    ((removed,),) = await ask(claims.remove_old(str(tenant), self._keep_days))
                left = removed != b"0"

    async def _round(self, connection: Connection, claim: int) -> float:
        """Begin what is due; for how many seconds there is nothing more to do."""
        for task in [each for each in self._sending if each.done()]:
            self._sending.pop(task)
            task.result()
        async with self._database:
            cursor = await connection.execute(_DUE)
            tenants = await cursor.fetchall()
        now, wait_s = datetime.now(UTC), _LOOK_S
        for tenant, due_at, claimed in tenants:
            room = _AT_ONCE - len(self._sending)
            if not isinstance(due_at, datetime) or room <= 0:
                continue
            if claimed or due_at <= now:
                await self._begin(connection, str(tenant), claim, room, abandoned=claimed is True)
            else:
                wait_s = min(wait_s, (due_at - now).total_seconds())
        return max(wait_s, 0.01)

    async def _begin(self, connection: Connection, tenant: str, claim: int, room: int, *, abandoned: bool) -> None:
        async with self._transaction(connection, tenant) as ask:
            if abandoned:
                await ask(claims.release(tenant, claim))
            found = [claims.claimed(tenant, row) for row in await ask(claims.take(tenant, claim, room))]
        for each in found:
            task = asyncio.create_task(self._deliver(connection, each))
            self._sending[task] = each.row_id
            task.add_done_callback(lambda _: self._woken.set())

    async def _deliver(self, connection: Connection, each: Claimed) -> None:
        """Send what is due to one subscriber, and keep what became of it."""
        try:
            outcome = await self._outcome(connection, each)
        except psycopg.Error:
            raise
        except Exception as error:
            log.exception("a notification could not be made", extra={"fields": {"subscription": each.row_id}})
            outcome = claims.failed(each, f"the notification could not be made ({type(error).__name__})", FAILURES)
        async with self._transaction(connection, each.tenant) as ask:
            await ask(claims.finish(each, outcome))

    @asynccontextmanager
    async def _transaction(self, connection: Connection, tenant: str) -> AsyncIterator[Ask]:
        """Statements of one transaction, which nobody else's come between."""
        async with self._database, under(connection, tenant):
            ask = asking(connection)
            await ask(claims.AS_DELIVERY)
            yield ask

    async def _outcome(self, connection: Connection, each: Claimed) -> Outcome:
        if each.ended:
            return claims.ended(each)
        if each.status not in ("requested", "active"):
            return claims.idle(each)
        topic = TOPICS.get(each.criteria)
        caller = subscriber.of_column(each.caller, tokens=self._tokens)
        if topic is None or not subscriber.may_follow(caller, topic):
            return claims.refused(each, "the subscriber's scopes no longer allow what it listens to")
        if each.status == "requested":
            problem = await self._post(each, each.standing("requested"), "handshake", ())
            return claims.refused(each, problem) if problem else claims.arrived(each, each.delivered)
        reader = told.Reader(caller, each.tenant, each.base)
        async with self._transaction(connection, each.tenant) as ask:
            events = await _next(ask, reader, each)
        problem = await self._post(
            each, each.standing("active"), "event-notification" if events else "heartbeat", events
        )
        if problem:
            return claims.failed(each, problem, FAILURES)
        return claims.arrived(each, events[-1].number if events else each.delivered)

    async def _post(self, each: Claimed, standing: Standing, kind: str, events: Sequence[told.Told]) -> str:
        """Why the endpoint did not take it; empty when it did."""
        problem = await self._problem(each, standing, kind, events)
        if problem:
            self._tally.failed[kind] += 1
        else:
            self._tally.taken[kind] += 1
            self._tally.events += len(events)
        return problem

    async def _problem(self, each: Claimed, standing: Standing, kind: str, events: Sequence[told.Told]) -> str:
        channel = each.channel
        body = notification(standing, kind, channel.content, events)
        if channel.is_xml:
            body = to_xml(document.parse(body))
        headers = {**dict(channel.headers), "Content-Type": channel.payload}
        try:
            reply = await self._webhooks.post(channel.endpoint, headers, body, channel.timeout_s)
        except (EndpointError, PostError) as error:
            return f"no answer from the endpoint: {error}"
        return "" if reply.accepted else f"the endpoint answered {reply.status}"


async def _next(ask: Ask, reader: told.Reader, each: Claimed) -> list[told.Told]:
    """The next events that are not delivered."""
    between = (each.delivered + 1, each.events)
    whole = each.channel.content == "full-resource"
    return await told.events(ask, reader, each.row_id, between, each.channel.max_count, whole=whole)
