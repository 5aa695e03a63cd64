"""The command `fhir-sched`: reads flags and environment, calls what does the work, says what went wrong in one line.

Exit codes: 0 done, 1 the work failed or `check` found something, 2 a wrong setting or flag.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, get_args, get_origin
from uuid import UUID

import click
from pydantic.fields import FieldInfo

from fhir_sched import __version__
from fhir_sched.settings import PREFIX, Settings, SettingsError, load

_RELAY = (
    "database_url", "data_dir", "auth", "public_url", "sinks", "event_payload", "webhook_secret", "park_after",
    "keep_events_days", "allow_private_endpoints", "log_level",
)  # fmt: skip
"""The settings that the relay reads."""


def _fail(message: str, code: int = 1) -> NoReturn:
    click.echo(f"fhir-sched: {message}", err=True)
    sys.exit(code)


def _metavar(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) in (types.UnionType,):
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    return {int: "NUMBER"}.get(kind, "TEXT")


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A flag for each named setting (all of them when none is named): `data_dir` is `--data-dir`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names or tuple(Settings.model_fields)):
            field = Settings.model_fields[name]
            shown = "" if "[default" in (field.description or "") or field.default in (None, ()) else str(field.default)
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                metavar=_metavar(field),
                help=f"{field.description}{f' [default: {shown}]' if shown else ''} ({PREFIX}{name.upper()})",
            )(command)
        return command

    return decorate


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        return load(**flags)
    except SettingsError as error:
        _fail(str(error), 2)


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    """Turn the failures that have a sentence into that sentence and an exit code; Ctrl-C is an orderly end."""
    import psycopg

    from fhir_sched.db.embedded import EmbeddedError
    from fhir_sched.db.migrations import MigrationError

    try:
        yield
    except (EmbeddedError, MigrationError) as error:
        _fail(str(error))
    except psycopg.Error as error:
        _fail(f"the database refused: {error.diag.message_primary or ' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(0)


@contextmanager
def _database(settings: Settings, purpose: str) -> Iterator[tuple[str, str]]:
    """(URL of the owner, URL of the application role): the operator's own, else the embedded one's."""
    from fhir_sched.db import embedded

    if settings.database_url is not None:
        yield settings.admin_url or "", settings.database_url
        return
    with embedded.running(settings.data_dir, purpose=f"fhir-sched {purpose}") as database:
        yield database.admin_url, database.app_url


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="fhir-sched")
def main() -> None:
    """A FHIR R4 API for scheduling on PostgreSQL.

    Settings come from the environment (FHIR_SCHED_<NAME>) or from the flag of the same name, which wins.
    """


@main.command()
@click.option("--demo", "with_demo", is_flag=True, help="load the demo data first and print lines to try")
@_options()
def serve(*, with_demo: bool, **flags: Any) -> None:
    """Serve the FHIR API; without DATABASE_URL on an embedded PostgreSQL, which is migrated first."""
    settings = _settings(flags)
    from fhir_sched import serving

    with _said_in_one_line():
        try:
            serving.serve(settings, with_demo=with_demo, say=click.echo)
        except serving.StartError as error:
            _fail(str(error), error.code)


@main.command()
@click.option("--grandfather", is_flag=True, help="let rows that break a new constraint stay as they are")
@_options("admin_url", "data_dir")
@click.option(
    "--app-password",
    envvar=f"{PREFIX}APP_PASSWORD",
    metavar="TEXT",
    help=f"password for the role fhir_sched_app; better by the environment ({PREFIX}APP_PASSWORD)",
)
def migrate(*, grandfather: bool, app_password: str | None, **flags: Any) -> None:
    """Bring the database of ADMIN_URL (or the embedded one) up to date, or leave it as it is and say why."""
    settings = _settings(flags)
    from fhir_sched.db import embedded, migrations

    if settings.admin_url is None and settings.database_url is not None:
        _fail(f"{PREFIX}ADMIN_URL: name the owner of the tables there; {PREFIX}DATABASE_URL is for serving only", 2)
    with _said_in_one_line():
        if settings.admin_url is not None:
            applied = migrations.migrate(
                settings.admin_url, grandfather=grandfather, app_password=app_password, progress=click.echo
            )
        else:
            with embedded.running(settings.data_dir, purpose="fhir-sched migrate") as database:
                applied = migrations.migrate(
                    database.admin_url, grandfather=grandfather, app_password=app_password, progress=click.echo
                )
    click.echo(f"{len(applied)} applied" if applied else "the database is current")


@main.command()
@_options("database_url", "data_dir", "demo_tenant")
def demo(**flags: Any) -> None:
    """Load demo data, or add the days that have come into view since they were loaded."""
    settings = _settings(flags)
    from fhir_sched import demo as demo_data
    from fhir_sched.db import migrations

    with _said_in_one_line(), _database(settings, "demo") as (admin_url, app_url):
        if settings.database_url is None:
            migrations.migrate(admin_url, progress=click.echo)
        added = demo_data.load(app_url, settings.demo_tenant)
    click.echo(f"tenant {settings.demo_tenant}: {added} slots added")


@main.group()
def slots() -> None:
    """The slots of schedules, by their availability rules."""


@slots.command("generate")
@click.option(
    "--horizon-days",
    metavar="NUMBER",
    type=click.IntRange(0, 1100),
    default=90,
    show_default=True,
    help="how many days after today",
)
@click.option("--tenant", "tenants", metavar="UUID", type=click.UUID, multiple=True, help="only this one; repeatable")
@_options("database_url", "data_dir")
def generate_slots(*, horizon_days: int, tenants: tuple[UUID, ...], **flags: Any) -> None:
    """Make the slots of all active schedules from now to a horizon.

    Safe to run again, at the same time as others, and after one that was ended half-way: what is there is left alone.
    """
    settings = _settings(flags)
    from fhir_sched import generation

    with _said_in_one_line(), _database(settings, "slots generate") as (_, app_url):
        done = generation.generate(app_url, horizon_days, tenants, click.echo)
    for failure in (failure for progress in done for failure in progress.failures):
        click.echo(f"fhir-sched: {failure}", err=True)
    if any(progress.failures for progress in done):
        sys.exit(1)


@main.command()
@_options("database_url", "data_dir")
def check(**flags: Any) -> None:
    """Say what is wrong with the database and how to mend it; exit code 1 when something is."""
    settings = _settings(flags)
    from fhir_sched.db import doctor

    with _said_in_one_line(), _database(settings, "check") as (_, app_url):
        found = doctor.check(app_url)
    for finding in found:
        click.echo(str(finding))
    if found:
        sys.exit(1)
    click.echo("all is well")


@main.group()
def rules() -> None:
    """Show and set what a clinic demands of bookings: how far ahead, how late, in which order; see docs/rules.md."""


def _schedule_id(_: click.Context, __: click.Parameter, text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text.removeprefix("Schedule/").removeprefix("sch-"))
    except ValueError:
        raise click.BadParameter("write it as sch-<uuid>") from None


_of_tenant = click.option("--tenant", type=click.UUID, metavar="UUID", help="whose rules [default: DEMO_TENANT]")
_of_schedule = click.option(
    "--schedule", callback=_schedule_id, metavar="ID", help="those of one schedule, which go before its tenant's"
)


@rules.command("show")
@_of_tenant
@_of_schedule
@_options("database_url", "data_dir", "demo_tenant")
def rules_show(*, tenant: UUID | None, schedule: UUID | None, **flags: Any) -> None:
    """Print every rule, for whom it holds, its value and where that was set."""
    settings = _settings(flags)
    from fhir_sched import rulebook

    with _said_in_one_line(), _database(settings, "rules") as (_, app_url), _rule_errors():
        listed = rulebook.listed(app_url, tenant or settings.demo_tenant, schedule)
    for each in listed:
        click.echo(f"{each.rule.name:16} {each.caller:7} {each.value:>8} {each.rule.unit:8} {each.origin}")


@rules.command("set")
@click.argument("name", metavar="RULE")
@click.argument("value", metavar="VALUE")
@click.option("--caller", "callers", multiple=True, metavar="portal|staff|hl7", help="for whom [default: everyone]")
@_of_tenant
@_of_schedule
@_options("database_url", "data_dir", "demo_tenant")
def rules_set(
    *, name: str, value: str, callers: tuple[str, ...], tenant: UUID | None, schedule: UUID | None, **flags: Any
) -> None:
    """Set RULE to VALUE: on or off, a number of minutes or days, none; `default` gives it back."""
    settings = _settings(flags)
    from fhir_sched import rulebook

    with _said_in_one_line(), _database(settings, "rules") as (_, app_url), _rule_errors():
        wanted = None if value == "default" else value
        changed = rulebook.change(app_url, tenant or settings.demo_tenant, schedule, name, wanted, callers)
    click.echo(f"{changed} changed")


@contextmanager
def _rule_errors() -> Iterator[None]:
    from fhir_sched.rulebook import RuleError

    try:
        yield
    except RuleError as error:
        _fail(str(error), 2)


@main.group(invoke_without_command=True)
@click.option("--sink", "given", multiple=True, metavar="URL", help="where events go; repeatable")
@click.option("--once", is_flag=True, help="end when nothing is left to send")
@click.option(
    "--allow-private", is_flag=True, help="let webhooks go to private addresses and over http (ALLOW_PRIVATE_ENDPOINTS)"
)
@click.option("--metrics-port", metavar="NUMBER", type=click.IntRange(1, 65_535), help="answer Prometheus there")
@_options(*_RELAY)
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
    if given:
        flags["sinks"] = ",".join((*given, *filter(None, [flags.get("sinks")])))
    if allow_private:
        flags["allow_private_endpoints"] = True
    settings = _settings(flags)
    from fhir_sched import relaying

    with _said_in_one_line(), _database(settings, "relay") as (_, app_url):
        try:
            relaying.run(settings, app_url, once=once, metrics_port=metrics_port)
        except relaying.RelayError as error:
            _fail(str(error), error.code)


@relay.command("parked")
@_options("database_url", "data_dir")
def relay_parked(**flags: Any) -> None:
    """List the events that a sink has refused too often: id, sink, type, refusals, since when, why."""
    settings = _settings(flags)
    from fhir_sched import relaying

    with _said_in_one_line(), _database(settings, "relay parked") as (_, app_url):
        found = relaying.parked(app_url)
    for each in found:
        click.echo("\t".join((each.event, each.sink, each.type, str(each.refusals), each.since, each.problem)))
    if not found:
        click.echo("no event is parked", err=True)


@relay.command("resend")
@click.argument("event", metavar="ID", required=False, type=click.UUID)
@click.option("--all", "everything", is_flag=True, help="every parked event")
@_options("database_url", "data_dir")
def relay_resend(*, event: UUID | None, everything: bool, **flags: Any) -> None:
    """Let a parked event be sent again, by the relay that runs or by the next."""
    if (event is None) is not everything:
        _fail("name the event's ID, or --all", 2)
    settings = _settings(flags)
    from fhir_sched import relaying

    with _said_in_one_line(), _database(settings, "relay resend") as (_, app_url):
        count = relaying.resend(app_url, None if event is None else str(event))
    if not count:
        _fail("no event is parked" if everything else f"no event {event} is parked")
    click.echo(f"{count} to be sent again")


@relay.command("forget")
@click.argument("sink", metavar="SINK")
@_options("database_url", "data_dir")
def relay_forget(*, sink: str, **flags: Any) -> None:
    """Give up what is still to be sent to a sink that is there no more, by its name in `relay parked`."""
    settings = _settings(flags)
    from fhir_sched import relaying

    with _said_in_one_line(), _database(settings, "relay forget") as (_, app_url):
        count = relaying.forget(app_url, sink)
    click.echo(f"{count} given up")


@main.command()
@click.option(
    "--scope", required=True, metavar="TEXT", help='scopes, such as "patient/Appointment.cruds patient/Slot.rs"'
)
@click.option("--tenant", metavar="UUID", help="tenant that the token is for [default: DEMO_TENANT]")
@click.option("--patient", metavar="ID", help="patient of patient/ scopes, an id or Patient/ID")
@click.option("--user", metavar="REFERENCE", help="fhirUser of user/ scopes, such as Practitioner/ID")
@click.option("--subject", metavar="TEXT", default="developer", show_default=True, help="claim sub")
@click.option("--client", metavar="TEXT", default="fhir-sched", show_default=True, help="claim client_id")
@click.option(
    "--expires-in", metavar="SECONDS", type=click.IntRange(1, 86_400), default=3600, show_default=True, help="life"
)
@_options("data_dir", "host", "port", "public_url", "audience", "tenant_claim", "demo_tenant")
def token(
    *,
    scope: str,
    tenant: str | None,
    patient: str | None,
    user: str | None,
    subject: str,
    client: str,
    expires_in: int,
    **flags: Any,
) -> None:
    """Mint a token from the development key in DATA_DIR; only a server with DEV_KEY=on trusts it."""
    settings = _settings(flags)
    from fhir_sched.security import development
    from fhir_sched.security.fetching import FetchError

    try:
        claims = development.claims(
            settings, tenant=tenant, scope=scope, patient=patient, user=user, subject=subject, client=client
        )
        click.echo(development.mint(settings.data_dir, claims, expires_in))
    except ValueError as error:
        _fail(str(error), 2)
    except FetchError as error:
        _fail(str(error))


@main.command()
@click.option("--base", metavar="URL", help="FHIR base that the statement is to name [default: a neutral one]")
def capability(base: str | None) -> None:
    """Print the CapabilityStatement, as GET metadata answers it."""
    from fhir_sched import capability as statements
    from fhir_sched import document

    statement = statements.statement(base or statements.NEUTRAL_BASE)
    click.echo(document.dumps(statement).decode())
