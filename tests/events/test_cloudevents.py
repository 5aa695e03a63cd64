"""What an event says: CloudEvents 1.0, read by the CloudEvents SDK, with the resource as it was."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cloudevents.v1.http import CloudEvent, from_json

from clinic import EXTENSION, Clinic, Resource, appointment, name, row_id
from db import Database
from events.conftest import once

NINE = "2031-01-01T09:00:00Z"
PUBLIC = "https://fhir.example"


def _events(path: Path) -> list[CloudEvent]:
    return [from_json(line) for line in path.read_text().splitlines()]


def _relayed(database: Database, lines: Path, **settings: Any) -> list[CloudEvent]:
    once(database, f"file://{lines}", public_url=PUBLIC, **settings)
    return _events(lines)


def _version(clinic: Clinic, of: Resource, version: str) -> Resource:
    found: Resource = clinic.http.get(f"{name(of)}/_history/{version}").json()
    return found


def test_each_change_is_an_event_with_the_resource_as_it_was_then(
    clinic: Clinic, database: Database, lines: Path
) -> None:
    of = clinic.schedule(zone="Europe/Berlin", comment="kept beside the columns")
    free = clinic.slot(of, NINE)
    made = clinic.booked(free, description="first", extension=[{"url": "urn:x", "valueString": "y"}])
    clinic.put({**made, "status": "cancelled", "description": "second"})
    closed = clinic.slot(
        of,
        NINE,
        5,
        status="busy-unavailable",
        extension=[{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}],
    )
    waiting = clinic.create(appointment(status="waitlist", comment="any day"))
    events = _relayed(database, lines)
    told = {(event["subject"], event.data["meta"]["versionId"]): event for event in events}
    assert len(told) == len(events)
    for resource, versions in ((of, "1"), (free, "1234"), (made, "12"), (closed, "1"), (waiting, "1")):
        for version in versions:
            event = told.pop((name(resource), version))
            assert event.data == _version(clinic, resource, version)
    assert not told
    rows = {
        str(row): (kind, at)
        for row, kind, at in clinic.sql("select id, event_type, created_at from outbox where published")
    }
    assert {event["id"]: event["type"] for event in events} == {row: kind for row, (kind, _) in rows.items()}
    for event in events:
        assert event["specversion"] == "1.0"
        assert event["source"] == f"{PUBLIC}/fhir/{clinic.tenant}"
        assert event["datacontenttype"] == "application/fhir+json"
        assert event["time"].endswith("Z")
        assert datetime.fromisoformat(event["time"]) == rows[event["id"]][1]


def test_a_deletion_has_no_data(clinic: Clinic, database: Database, lines: Path) -> None:
    of = clinic.schedule()
    clinic.http.delete(name(of))
    _relayed(database, lines)
    last = json.loads(lines.read_text().splitlines()[-1])
    assert (last["type"], last["subject"]) == ("schedule.deleted", name(of))
    assert "data" not in last


def test_by_setting_an_event_holds_the_reference_alone(clinic: Clinic, database: Database, lines: Path) -> None:
    of = clinic.schedule()
    (event,) = _relayed(database, lines, event_payload="id-only")
    assert event.data == {"reference": name(of)}


def test_without_a_public_url_the_source_is_the_path(clinic: Clinic, database: Database, lines: Path) -> None:
    clinic.schedule()
    once(database, f"file://{lines}")
    assert _events(lines)[0]["source"] == f"/fhir/{clinic.tenant}"


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("claim.submitted", {"any": ["thing", 1]}),
        ("appointment.created", {"patient": "another program's own form"}),
        ("slot.created", {"id": "{aggregate}", "row": {"id": "no uuid", "start_at": "never"}}),
        ("slot.updated", {"id": "{aggregate}", "row": {"id": "{aggregate}"}}),
        ("slot.deleted", "only a word"),
        ("odd type, and ünusual", None),
    ],
)
def test_a_row_of_another_program_goes_out_as_it_stands(
    clinic: Clinic, database: Database, lines: Path, event_type: str, payload: Any
) -> None:
    aggregate = uuid4()
    text = json.dumps(payload).replace("{aggregate}", str(aggregate))
    clinic.schedule()
    insert = "insert into outbox (tenant_id, aggregate_id, event_type, payload) values (%s, %s, %s, %s) returning id"
    ((row,),) = clinic.sql(insert, clinic.tenant, aggregate, event_type, text)
    event = _relayed(database, lines)[1]
    assert (event["id"], event["type"]) == (str(row), event_type)
    if event["subject"] == f"urn:uuid:{aggregate}":
        assert event.data == json.loads(text)
    else:
        # a row that says no more than its id is served like that, too
        assert event_type == "slot.updated"
        assert event.data["id"] == f"slt-{aggregate}"


def test_what_generated_slots_announce_is_about_their_schedule(clinic: Clinic, database: Database, lines: Path) -> None:
    of = clinic.schedule()
    clinic.sql(
        """
        insert into outbox (tenant_id, aggregate_id, event_type, payload)
        select tenant_id, id, 'slots.generated',
               jsonb_build_object('id', id, 'version', version, 'row', to_jsonb(s), 'slots', '{"count": 3}'::jsonb)
        from schedules s
        where id = %s
        """,
        row_id(of),
    )
    event = _relayed(database, lines)[1]
    assert (event["type"], event["subject"], event.data) == ("slots.generated", name(of), clinic.read(of))
