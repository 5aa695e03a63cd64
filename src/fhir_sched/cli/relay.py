"""`fhir-sched relay`: the relay as a process of its own, and what it has parked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from fhir_sched.cli.commands import main
from fhir_sched.cli.frame import database_of, fail, options, said_in_one_line, settings_of

_RELAY = (
    "database_url", "data_dir", "auth", "public_url", "sinks", "event_payload", "webhook_secret", "park_after",
    "keep_events_days", "allow_private_endpoints", "log_level",
)  # fmt: skip
"""The settings that the relay reads."""


@main.group(invoke_without_command=True)
@click.option("--sink", "given", multiple=True, metavar="URL", help="where events go; repeatable")
@click.option("--once", is_flag=True, help="end when nothing is left to send")
@click.option(
    "--allow-private", is_flag=True, help="let webhooks go to private addresses and over http (ALLOW_PRIVATE_ENDPOINTS)"
)
@click.option("--metrics-port", metavar="NUMBER", type=click.IntRange(1, 65_535), help="answer Prometheus there")
@options(*_RELAY)
@click.pass_context
def relay(
    context: click.Context,
    /,
    *,
    given: tuple[str, ...],
    once: bool,
    allow_private: bool,
    metrics_port: int | None,
    **flags: Any,
) -> None:
    """Send the events of the outbox to sinks, and to Subscriptions what they ask for, until a signal ends it.

    \b
    https://host/path             one POST an event, signed with WEBHOOK_SECRET
    nats://host:4222/prefix       JetStream, subject prefix.<tenant>.<event type>
    file:///path, stdout:         one line an event
    discard:                      takes and forgets
    """
    if context.invoked_subcommand is not None:
        return
    if not all(map(str.strip, given)):
        fail("--sink names no sink; is a variable of the shell empty?", 2)
    if given:
        flags["sinks"] = ",".join((*given, *filter(None, [flags.get("sinks")])))
    if allow_private:
        flags["allow_private_endpoints"] = True
    settings = settings_of(flags)
    from fhir_sched import relaying

    with said_in_one_line(), database_of(settings, "relay") as (_, app_url):
        try:
            relaying.run(settings, app_url, once=once, metrics_port=metrics_port)
        except relaying.RelayError as error:
            fail(str(error), error.code)


@relay.command("parked")
@options("database_url", "data_dir")
def relay_parked(**flags: Any) -> None:
    """List the events that a sink has refused too often: id, sink, type, refusals, since when, why."""
    settings = settings_of(flags)
    from fhir_sched import relaying

    with said_in_one_line(), database_of(settings, "relay parked") as (_, app_url):
        found = relaying.parked(app_url)
    for each in found:
        click.echo("\t".join((each.event, each.sink, each.type, str(each.refusals), each.since, each.problem)))
    if not found:
        click.echo("no event is parked", err=True)


@relay.command("resend")
@click.argument("event", metavar="ID", required=False, type=click.UUID)
@click.option("--all", "everything", is_flag=True, help="every parked event")
@options("database_url", "data_dir")
def relay_resend(*, event: UUID | None, everything: bool, **flags: Any) -> None:
    """Let a parked event be sent again, by the relay that runs or by the next."""
    if (event is None) is not everything:
        fail("name the event's ID, or --all", 2)
    settings = settings_of(flags)
    from fhir_sched import relaying

    with said_in_one_line(), database_of(settings, "relay resend") as (_, app_url):
        count = relaying.resend(app_url, None if event is None else str(event))
    if not count:
        fail("no event is parked" if everything else f"no event {event} is parked")
    click.echo(f"{count} to be sent again")


@relay.command("forget")
@click.argument("sink", metavar="SINK")
@options("database_url", "data_dir")
def relay_forget(*, sink: str, **flags: Any) -> None:
    """Give up what is still to be sent to a sink that is there no more, by its name in `relay parked`."""
    settings = settings_of(flags)
    from fhir_sched import relaying

    with said_in_one_line(), database_of(settings, "relay forget") as (_, app_url):
        count = relaying.forget(app_url, sink)
    if not count:
        fail(f"nothing is to be sent to {sink}")
    click.echo(f"{count} given up")
