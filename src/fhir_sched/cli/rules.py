"""`fhir-sched rules`: show and set what a clinic demands of bookings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import click

from fhir_sched.cli.commands import main
from fhir_sched.cli.frame import database_of, fail, options, said_in_one_line, settings_of


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
@options("database_url", "data_dir", "demo_tenant")
def rules_show(*, tenant: UUID | None, schedule: UUID | None, **flags: Any) -> None:
    """Print every rule, for whom it holds, its value and where that was set."""
    settings = settings_of(flags)
    from fhir_sched import rulebook

    with said_in_one_line(), database_of(settings, "rules") as (_, app_url), _rule_errors():
        listed = rulebook.listed(app_url, tenant or settings.demo_tenant, schedule)
    for each in listed:
        click.echo(f"{each.rule.name:16} {each.caller:7} {each.value:>8} {each.rule.unit:8} {each.origin}")


@rules.command("set")
@click.argument("name", metavar="RULE")
@click.argument("value", metavar="VALUE")
@click.option("--caller", "callers", multiple=True, metavar="portal|staff|hl7", help="for whom [default: everyone]")
@_of_tenant
@_of_schedule
@options("database_url", "data_dir", "demo_tenant")
def rules_set(
    *, name: str, value: str, callers: tuple[str, ...], tenant: UUID | None, schedule: UUID | None, **flags: Any
) -> None:
    """Set RULE to VALUE: on or off, a number of minutes or days, none; `default` gives it back."""
    settings = settings_of(flags)
    from fhir_sched import rulebook

    with said_in_one_line(), database_of(settings, "rules") as (_, app_url), _rule_errors():
        wanted = None if value == "default" else value
        changed = rulebook.change(app_url, tenant or settings.demo_tenant, schedule, name, wanted, callers)
    click.echo(f"{changed} changed")


@contextmanager
def _rule_errors() -> Iterator[None]:
    from fhir_sched.rulebook import RuleError

    try:
        yield
    except RuleError as error:
        fail(str(error), 2)
