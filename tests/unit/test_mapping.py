"""The compiled template of a source and its elements one by one write the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_sched import rendering
from fhir_sched.definition import Resource, Source
from fhir_sched.resources import APPOINTMENT, RESOURCES, SLOT

UUID = b"205c52cc-d9f6-6058-6f6f-b644f497fb09"
TIME = st.sampled_from(
    [b"2026-11-23 16:07:02.043145+00", b"2026-11-23 16:07:02+00", b"infinity", None, b"10000-01-01 00:00:00+00",
     b"0044-01-01 00:00:00+00 BC"]
)  # fmt: skip
COLUMNS: dict[str, st.SearchStrategy[bytes | None]] = {
    "id": st.just(UUID),
    "version": st.just(b"7"),
    "fhir": st.none(),
    "updated_at": st.sampled_from([b"2026-11-23 16:07:02.043145+00", b"2026-11-23 16:07:02+00", b"infinity"]),
    "created_at": TIME,
    "start_at": TIME,
    "end_at": TIME,
    "status": st.sampled_from(
        [b"free", b"busy", b"blocked", b"booked", b"arrived", b"proposed", b"cancelled", b"noshow", b"waiting", b"odd"]
    ),
    "appointment_type": st.sampled_from([None, b"FOLLOWUP", b"X1", b"two words", b'quo"te', b"", "é".encode()]),
    "capacity": st.sampled_from([None, b"1", b"12"]),
    "hold_expires_at": st.sampled_from([None, b"2026-11-23 16:07:02.043145+00", b"infinity"]),
    "source": st.sampled_from([b"staff", b"portal", b'x"y']),
    "allow_double_booking": st.sampled_from([b"t", b"f", b"true", b"false"]),
    "is_active": st.sampled_from([b"t", b"f", b"true", b"false"]),
    "actor_type": st.sampled_from([b"provider", b"location", b"device", b"odd"]),
    "timezone": st.sampled_from([b"UTC", b"Europe/Berlin"]),
    "availability_pattern": st.sampled_from([None, b'{"rules": []}']),
    "service_types": st.sampled_from([None, b'["57"]']),
    "priority": st.sampled_from([b"0", b"3", b"-1"]),
    "type": st.sampled_from([b"holiday", b"two words"]),
    "conflicts": st.sampled_from([None, f'["{UUID.decode()}"]'.encode()]),
    "criteria": st.sampled_from([None, b'{"days": ["mon"]}']),
    **dict.fromkeys(("reason", "cancel_reason", "note"), st.sampled_from([None, b"", b"words"])),
    **dict.fromkeys(("schedule_id", "actor_id", "patient_id"), st.just(UUID)),
    **dict.fromkeys(("slot_id", "provider_id", "location_id"), st.sampled_from([None, UUID])),
}
SOURCES = [(resource, source) for resource in RESOURCES.values() for source in resource.sources]


def rows(source: Source) -> st.SearchStrategy[tuple[bytes | None, ...]]:
    return st.tuples(*(COLUMNS[column] for column in source.columns))


@pytest.mark.parametrize(("resource", "source"), SOURCES, ids=lambda each: getattr(each, "table", ""))
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_template_of_an_ordinary_row_writes_what_its_elements_write(
    resource: Resource, source: Source, data: st.DataObject
) -> None:
    row = data.draw(rows(source))
    template, entries = rendering.compiled(resource, source)
    one_by_one = rendering.Renderer(resource, source)(row)
    assert template(row) in (None, one_by_one)
    pieces = entries([(*row, b"a sort key")], b"<", b">", rendering.Renderer(resource, source))
    assert b"".join(pieces) == b'<%b","resource":%b>' % (UUID, one_by_one)
    assert json.loads(one_by_one)["id"] == f"{source.prefix}-{UUID.decode()}"


def ordinary(source: Source, **changed: Any) -> tuple[bytes | None, ...]:
    row: dict[str, bytes | None] = dict.fromkeys(source.columns)
    row |= {"id": UUID, "version": b"1", "updated_at": b"2026-11-23 16:07:02+00", "start_at": b"2026-11-23 09:00:00+00"}
    row |= {"end_at": b"2026-11-23 09:30:00+00", "created_at": b"2026-11-23 08:00:00+00", "patient_id": UUID}
    row |= {"schedule_id": UUID, "slot_id": UUID, "source": b"staff", "allow_double_booking": b"f", "capacity": b"1"}
    return tuple((row | changed)[column] for column in source.columns)


def test_a_slot_and_an_appointment_as_they_mostly_are_go_through_the_template() -> None:
    slots, appointments = SLOT.sources[0], APPOINTMENT.sources[0]
    assert rendering.compiled(SLOT, slots)[0](ordinary(slots, status=b"free")) is not None
    assert rendering.compiled(APPOINTMENT, appointments)[0](ordinary(appointments, status=b"booked")) is not None
