"""Settings -> relay. The one place that reads them."""

from __future__ import annotations

import asyncio

from fhir_sched.events import signature, sinks
from fhir_sched.events.fanout import Fanout
from fhir_sched.events.relay import Relay
from fhir_sched.events.sending import Sending
from fhir_sched.events.sink import Sink, SinkError
from fhir_sched.events.tally import Tally
from fhir_sched.settings import PREFIX, EventPayload, Settings


def made(settings: Settings) -> list[Sink]:
    """The sinks that the settings name. Raises SinkError with the setting's name."""
    try:
        secrets = signature.keys(settings.webhook_secret or "")
    except ValueError as error:
        raise SinkError(f"{PREFIX}WEBHOOK_SECRET: {error}") from None
    try:
        return sinks.make(settings.sinks, sinks.Options(secrets, private=settings.allow_private_endpoints))
    except SinkError as error:
        raise SinkError(f"{PREFIX}SINKS: {error}") from None


def problem(settings: Settings) -> str:
    """What is wrong with the settings of the relay, one line; empty when nothing is."""
    try:
        found = made(settings)
        if settings.relay:
            asyncio.run(_opened(found))
    except SinkError as error:
        return str(error)
    return ""


async def _opened(found: list[Sink]) -> None:
    for sink in found:
        await sink.open()
        await sink.close()


def build(settings: Settings, *, fanout: Fanout | None = None, tally: Tally | None = None) -> Relay | None:
    """The relay of this process, not running yet; None where it would have nobody to tell. Raises SinkError."""
    found = made(settings)
    if settings.database_url is None or not (found or fanout):
        return None
    sending = Sending(
        root=settings.public_url or "",
        whole=settings.event_payload is EventPayload.FULL_RESOURCE,
        park_after=settings.park_after,
    )
    return Relay(settings.database_url, found, sending, fanout=fanout, keep_days=settings.keep_events_days, tally=tally)
