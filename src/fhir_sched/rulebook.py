"""A tenant's rules of booking, shown and set for `fhir-sched rules`; see docs/rules.md.

Works as the role that serves and under row-level security, in one short transaction. The database applies a rule from
the next booking on. Knows nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg

from fhir_sched.scheduling.booking_rules import RULES, Rule

_FOUND = """
select distinct on (rule, caller) rule, caller, value, schedule_id is not null
from booking_rules
where tenant_id = %(tenant)s and (schedule_id is null or schedule_id = %(schedule)s)
order by rule, caller, schedule_id nulls last
"""
_SET = """
insert into booking_rules (tenant_id, caller, schedule_id, rule, value)
values (%(tenant)s, %(caller)s, %(schedule)s, %(rule)s, %(value)s)
on conflict on constraint booking_rules_key do update set value = excluded.value, updated_at = now()
"""
_UNSET = """
delete from booking_rules
where tenant_id = %(tenant)s and caller = %(caller)s and rule = %(rule)s
  and schedule_id is not distinct from %(schedule)s
"""


class RuleError(Exception):
    """Why a rule can't be set, in a sentence that says what would be right."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for one caller: the rule, its value as a person writes it, and where that was said."""

    rule: Rule
    caller: str
    value: str
    origin: str


def listed(url: str, tenant: UUID, schedule: UUID | None = None) -> list[Setting]:
    """Every rule for every caller, as it holds for the schedule (None: for schedules without a rule of their own)."""
    with _tenant(url, tenant) as connection:
        _require(connection, tenant, schedule)
        rows = connection.execute(_FOUND, {"tenant": tenant, "schedule": schedule})
        said = {(rule, caller): (value, "schedule" if own else "tenant") for rule, caller, value, own in rows}
    return [_setting(rule, caller, said) for rule in RULES.values() for caller in rule.callers]


def change(
    url: str, tenant: UUID, schedule: UUID | None, name: str, value: str | None, callers: tuple[str, ...]
) -> int:
    """Set a rule for these callers (none named: all it knows), or with None give it back; how many rows that changed.

    Raises RuleError for an unknown rule, value, caller or schedule.
    """
    rule, number = _read(name, value)
    unknown = [caller for caller in callers if caller not in rule.callers]
    if unknown:
        raise RuleError(f"{name} is a rule for {', '.join(rule.callers)}, not for {', '.join(unknown)}")
    given = {"tenant": tenant, "schedule": schedule, "rule": name, "value": number}
    with _tenant(url, tenant) as connection:
        _require(connection, tenant, schedule)
        statement = _UNSET if value is None else _SET
        done = [connection.execute(statement, {**given, "caller": each}) for each in callers or rule.callers]
        return sum(cursor.rowcount for cursor in done)


def _setting(rule: Rule, caller: str, said: dict[tuple[str, str], tuple[int | None, str]]) -> Setting:
    value, origin = said.get((rule.name, caller), (rule.default(caller), "default"))
    return Setting(rule, caller, rule.show(value), origin)


def _read(name: str, value: str | None) -> tuple[Rule, int | None]:
    rule = RULES.get(name)
    if rule is None:
        raise RuleError(f"there is no rule {name!r}; there are {', '.join(RULES)}")
    try:
        return rule, None if value is None else rule.parse(value)
    except ValueError as error:
        raise RuleError(str(error)) from None


@contextmanager
def _tenant(url: str, tenant: UUID) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, connect_timeout=10, application_name="fhir-sched rules") as connection:
        connection.execute("select set_config('app.tenant_id', %s, true)", [str(tenant)])
        yield connection


def _require(connection: psycopg.Connection, tenant: UUID, schedule: UUID | None) -> None:
    if schedule is None:
        return
    found = connection.execute("select from schedules where tenant_id = %s and id = %s", [tenant, schedule])
    if found.rowcount == 0:
        raise RuleError(f"there is no Schedule/sch-{schedule} in tenant {tenant}")
