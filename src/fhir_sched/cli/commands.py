"""The command `fhir-sched`: reads flags and environment, calls what does the work, says what went wrong in one line.

Exit codes: 0 done, 1 the work failed or `check` found something, 2 a wrong setting or flag.
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import click

from fhir_sched import __version__
from fhir_sched.cli.frame import database_of, fail, options, said_in_one_line, settings_of
from fhir_sched.settings import PREFIX


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="fhir-sched")
def main() -> None:
    """A FHIR R4 API for scheduling on PostgreSQL.

    Settings come from the environment (FHIR_SCHED_<NAME>) or from the flag of the same name, which wins.
    """


@main.command()
@click.option("--demo", "with_demo", is_flag=True, help="load the demo data first and print lines to try")
@options()
def serve(*, with_demo: bool, **flags: Any) -> None:
    """Serve the FHIR API; without DATABASE_URL on an embedded PostgreSQL, which is migrated first."""
    settings = settings_of(flags)
    from fhir_sched import serving

    with said_in_one_line():
        try:
            serving.serve(settings, with_demo=with_demo, say=click.echo)
        except serving.StartError as error:
            fail(str(error), error.code)


@main.command()
@click.option("--grandfather", is_flag=True, help="let rows that break a new constraint stay as they are")
@options("admin_url", "data_dir")
@click.option(
    "--app-password",
    envvar=f"{PREFIX}APP_PASSWORD",
    metavar="TEXT",
    help=f"password for the role fhir_sched_app; better by the environment ({PREFIX}APP_PASSWORD)",
)
def migrate(*, grandfather: bool, app_password: str | None, **flags: Any) -> None:
    """Bring the database of ADMIN_URL (or the embedded one) up to date, or leave it as it is and say why."""
    settings = settings_of(flags)
    from fhir_sched.db import embedded, migrations

    if settings.admin_url is None and settings.database_url is not None:
        fail(f"{PREFIX}ADMIN_URL: name the owner of the tables there; {PREFIX}DATABASE_URL is for serving only", 2)
    with said_in_one_line():
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
@options("database_url", "data_dir", "demo_tenant")
def demo(**flags: Any) -> None:
    """Load demo data, or add the days that have come into view since they were loaded."""
    settings = settings_of(flags)
    from fhir_sched import demo as demo_data
    from fhir_sched.db import migrations

    with said_in_one_line(), database_of(settings, "demo") as (admin_url, app_url):
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
@options("database_url", "data_dir")
def generate_slots(*, horizon_days: int, tenants: tuple[UUID, ...], **flags: Any) -> None:
    """Make the slots of all active schedules from now to a horizon.

    Safe to run again, at the same time as others, and after one that was ended half-way: what is there is left alone.
    """
    settings = settings_of(flags)
    from fhir_sched import generation

    with said_in_one_line(), database_of(settings, "slots generate") as (_, app_url):
        done = generation.generate(app_url, horizon_days, tenants, click.echo)
    for failure in (failure for progress in done for failure in progress.failures):
        click.echo(f"fhir-sched: {failure}", err=True)
    if any(progress.failures for progress in done):
        sys.exit(1)


@main.command()
@options("database_url", "replica_url", "data_dir")
def check(**flags: Any) -> None:
    """Say what is wrong with the database, and the replica, and how to mend it; exit code 1 when something is."""
    settings = settings_of(flags)
    from fhir_sched.db import doctor, replica_doctor

    with said_in_one_line(), database_of(settings, "check") as (_, app_url):
        found = doctor.check(app_url)
        if settings.replica_url is not None and not found:
            found = replica_doctor.check(app_url, settings.replica_url)
    for finding in found:
        click.echo(str(finding))
    if found:
        sys.exit(1)
    click.echo("all is well")


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
@options("data_dir", "host", "port", "public_url", "audience", "tenant_claim", "demo_tenant")
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
    settings = settings_of(flags)
    from fhir_sched.security import development
    from fhir_sched.security.fetching import FetchError

    try:
        claims = development.claims(
            settings, tenant=tenant, scope=scope, patient=patient, user=user, subject=subject, client=client
        )
        click.echo(development.mint(settings.data_dir, claims, expires_in))
    except ValueError as error:
        fail(str(error), 2)
    except FetchError as error:
        fail(str(error))


@main.command()
@click.option("--base", metavar="URL", help="FHIR base that the statement is to name [default: a neutral one]")
def capability(base: str | None) -> None:
    """Print the CapabilityStatement, as GET metadata answers it."""
    from fhir_sched import capability as statements
    from fhir_sched import document

    statement = statements.statement(base or statements.NEUTRAL_BASE)
    click.echo(document.dumps(statement).decode())
