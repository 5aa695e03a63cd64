"""docs/database.md: where each table, constraint, trigger and function has its current definition, and what it does.

An applied file of `sql/` never changes, so a later one replaces a function whole, and a reader can't see which file has
the last word. Here the files are applied one by one to an empty database; what a file made or changed is what the
catalogs say differently after it. `python tools/database.py` writes the page, `--check` only says whether it is behind.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from fhir_sched.db import embedded, migrations
from fhir_sched.db.migrations import Migration

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "database.md"
_MODEL: Final = 1
"""The migration with the tables of the other programs."""

_CATALOGS: Final = {
    "table": """
        select c.relname, '', string_agg(format('%s %s', a.attname, a.atttypid::regtype), ', ' order by a.attnum),
            obj_description(c.oid, 'pg_class')
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
        group by c.oid, c.relname""",
    "constraint": """
        select n.conname, c.relname, pg_get_constraintdef(n.oid), obj_description(n.oid, 'pg_constraint')
        from pg_constraint n
        join pg_class c on c.oid = n.conrelid
        where n.connamespace = 'public'::regnamespace and n.contype in ('c', 'f', 'u', 'x')""",
    "trigger": """
        select t.tgname, c.relname, pg_get_triggerdef(t.oid), obj_description(t.oid, 'pg_trigger')
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = 'public'::regnamespace and not t.tgisinternal""",
    "function": """
        select p.proname, pg_get_function_identity_arguments(p.oid),
            coalesce(nullif(p.prosrc, ''), pg_get_functiondef(p.oid)), obj_description(p.oid, 'pg_proc')
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
          and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')""",
}


@dataclass(frozen=True, order=True)
class Thing:
    """A table, constraint, trigger or function; `of` is its table, or a function's arguments."""

    kind: str
    of: str
    name: str


@dataclass
class Found:
    """A thing's definition as the catalogs have it, the files that made and changed it, and what they say it does."""

    definition: str
    files: list[Migration] = field(default_factory=list)
    above: str = ""
    comment: str = ""


def things(url: str) -> dict[Thing, Found]:
    """Everything that the migrations leave in an empty database, whose owner `url` is."""
    found: dict[Thing, Found] = {}
    with psycopg.connect(url, prepare_threshold=None) as connection:
        connection.execute("set local search_path = public")
        for migration in migrations.available():
            connection.execute(migration.text.encode())
            seen = dict(_seen(connection))
            found = {thing: each for thing, each in found.items() if thing in seen}
            for thing, (definition, comment) in seen.items():
                known = found.setdefault(thing, Found(""))
                if known.definition != definition:
                    known.definition = definition
                    known.files.append(migration)
                    known.above = _above(thing, migration.text) or known.above
                known.comment = comment
    return found


def _seen(connection: psycopg.Connection) -> Iterator[tuple[Thing, tuple[str, str]]]:
    for kind, query in _CATALOGS.items():
        for name, of, definition, comment in connection.execute(query.encode()).fetchall():
            yield Thing(kind, of, name), (definition, comment or "")


def _above(thing: Thing, text: str) -> str:
    """The first sentence of the lines above a definition or, without such, of what a file says that it is for."""
    verb = "add constraint" if thing.kind == "constraint" else rf"create (?:or replace )?{thing.kind}"
    defined = re.search(rf"((?:^ *--.*\n)+) *(?:alter table \w+ )?{verb} {thing.name}\b", text, re.MULTILINE)
    if defined is None and thing.kind not in ("table", "function"):
        return ""
    above = defined[1] if defined is not None else re.split(r"^(?!--)", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.strip().removeprefix("--").strip() for line in above.splitlines()]
    paragraphs = " ".join(lines).split("  ")
    # above the first definition of a file stands what the file is for, in front of what the definition is for
    said = paragraphs[-1] if defined is not None and defined.start() == 0 else paragraphs[0]
    return re.split(r"(?<=[.:]) (?=[A-Z])", said)[0].rstrip(".:")


def page(url: str) -> str:
    """The whole of docs/database.md, from an empty database that is migrated here."""
    found = things(url)
    parts = [_HEAD]
    ours = {thing: each for thing, each in found.items() if thing.kind == "table" or each.files[-1].version != _MODEL}
    for kind, head, intro in _SECTIONS:
        parts.append(f"## {head}\n\n{intro}\n\n")
        grouped: dict[str, list[str]] = defaultdict(list)
        for thing, each in sorted(ours.items(), key=lambda item: item[0]):
            if thing.kind == kind:
                grouped["" if kind in ("table", "function") else thing.of].append(_row(thing, each))
        columns = "| name | files | what it does |" if kind == "table" else "| name | file | what it does |"
        for table, rows in grouped.items():
            title = f"### {table}\n\n" if table else ""
            parts.append(f"{title}{columns}\n| --- | --- | --- |\n{''.join(sorted(rows))}\n")
    return "".join(parts).rstrip("\n") + "\n"


def _row(thing: Thing, found: Found) -> str:
    files = found.files if thing.kind == "table" else found.files[-1:]
    links = ", ".join(f"[{each.file_name.removesuffix('.sql')}](../sql/{each.file_name})" for each in files)
    cells = (f"`{thing.name}`", links, does(thing, found))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def does(thing: Thing, found: Found) -> str:
    """What a thing does in a line; of a constraint also its own words, of a trigger when it calls which function."""
    said = found.comment or _SAID.get(thing.name, "") or found.above
    match thing.kind:
        case "constraint":
            return f"{said}: `{found.definition}`" if said else f"`{found.definition}`"
        case "trigger":
            when = re.search(r"(BEFORE|AFTER) (.*?) ON .*EXECUTE FUNCTION (?:\w+\.)?(\w+)", found.definition)
            moment = f"{when[1].lower()} {when[2].lower()}: `{when[3]}`" if when else ""
            return f"{moment}. {said}" if said else moment
    return said


_SAID: Final = {
    "appointments": "Appointments, with what FHIR needs beside the model's columns; also holds, by `hold_expires_at`",
    "booking_rules": "A tenant's rules of booking, one row a rule and caller, of all schedules or of one",
    "idempotent_requests": "Answers by `Idempotency-Key`, one row a tenant, caller and key",
    "outbox": "Every change as an event, until a relay has published it",
    "schedule_exceptions": "Times at which a schedule is blocked, served as Slots",
    "schedules": "Schedules, with the zone that PostgreSQL knows of theirs",
    "search_tokens": "What has no column to be searched by: one row a code, identifier or reference of a row",
    "slots": "Slots, with their capacity and what blocks them",
    "subscriptions": "Subscriptions: what they listen to, whose they are, their state and delivery",
    "waitlist_entries": "Entries of the waitlist, served as Appointments",
    "waitlist_openings": "Slots that became free and that nobody has looked at yet; null: an entry no longer waits",
    "fhir_sched_announce_conflict": "Puts the appointments that an exception covers into the outbox",
    "fhir_sched_appointment_inserted": "The version of an id that comes back, and the schedule of the slot",
    "fhir_sched_check_status": "Refuses a status that may not follow the one before, where the tenant has that rule",
    "fhir_sched_exception_written": "Blocks the slots that an exception covers now, frees those that it covered before",
    "fhir_sched_keep_zone": "The zone beside the model's timezone, in a form that PostgreSQL knows",
    "fhir_sched_moment": "The moment that a date of R4 begins or ends in a zone; null for what is none",
    "fhir_sched_next_version": "Counts the version on and says when",
    "fhir_sched_occupy": "Slots and practitioners' times follow the appointment's status, slots and practitioners",
    "fhir_sched_override_reason": "The reason that an appointment gives for overriding the rules; null for none",
    "fhir_sched_prune_appointment": "Drops what was kept of an appointment and another program's change made untrue",
    "fhir_sched_prune_exception": "The same for an exception",
    "fhir_sched_prune_schedule": "The same for a schedule",
    "fhir_sched_prune_slot": "The same for a slot",
    "fhir_sched_prune_waitlist_entry": "The same for an entry of the waitlist",
    "fhir_sched_record": "The version before a change goes to the history, the change itself to the outbox",
    "fhir_sched_refuse_slots": "Raises the error of a rule, with the ids of the slots concerned",
    "fhir_sched_slot_changed": "What a changed slot's capacity, appointments and exceptions make of its status",
    "fhir_sched_slot_inserted": "The version of an id that comes back, and whether an exception blocks the new slot",
    "fhir_sched_slot_opened": "Writes down a slot that became free, where somebody waits",
    "fhir_sched_slots_opened": "The same for all free slots of one insert",
    "fhir_sched_subscription_deleted": "The history says that it was deleted, and by which version",
    "fhir_sched_subscription_state": "What a change of a subscription means for its state and delivery",
    "fhir_sched_tenants_with_openings": "The tenants whose waitlist has something to do",
    "fhir_sched_times": "The slots that a schedule's rules give between two days, in its zone",
    "fhir_sched_withdraw_slots": "Takes back unbooked slots that the rules no longer give; their number",
    "fhir_sched_write_tokens": "Keeps a row's entries of search_tokens",
}
"""Where the landed file says nothing above a definition, or something else; `comment on` goes before it."""


_SECTIONS: Final = (
    (
        "table",
        "Tables",
        "The file that made the table, then those that gave it columns. `001_model` is the other programs'.",
    ),
    ("constraint", "Constraints", "Beside primary keys and those of the model."),
    ("trigger", "Triggers", "Of each event they fire in the order of their names."),
    ("function", "Functions", "The file has the current definition; earlier ones that it replaced are left out."),
)
_HEAD: Final = """# The database, name by name

Which file of `sql/` has the current definition of each table, constraint, trigger and function: a landed file never
changes, so a later one replaces a function whole. What they have in common stands in
[architecture](architecture.md#the-database). Generated by `python tools/database.py` from the migrated catalogs and the
comments in the files.

"""


def main() -> int:
    """Write the page, or with --check say that it is behind; 1 when it is."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--check", action="store_true")
    only_check = reader.parse_args().check
    with (
        tempfile.TemporaryDirectory(prefix="fhir-sched-page-") as folder,
        embedded.start(Path(folder) / "data", purpose="page") as running,
    ):
        wanted = page(running.admin_url)
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"docs/{PAGE.name}: {'behind sql/, run python tools/database.py' if only_check else 'written'}")
    if not only_check:
        PAGE.write_text(wanted, encoding="utf-8")
    return int(only_check)


if __name__ == "__main__":
    sys.exit(main())
