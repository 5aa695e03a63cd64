"""Exceptions over the night in which the clocks change, by this API and by other programs: made, moved, deleted."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from clinic import EXTENSION, Clinic, Resource, later, name, row_id

MEETING = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "meeting"}]
NIGHTS = [
    ("America/New_York", "2030-03-10"),
    ("America/New_York", "2030-11-03"),
    ("Australia/Lord_Howe", "2030-10-06"),
    ("Australia/Lord_Howe", "2030-04-07"),
]


class Closed:
    """An exception that somebody makes, moves and deletes, by one way or the other."""

    def __init__(self, clinic: Clinic, of: Resource, api: bool) -> None:
        self.clinic, self.of, self.api = clinic, of, api
        self.key: UUID = uuid4()

    def put(self, start: str, end: str) -> None:
        body: Resource = {
            "resourceType": "Slot",
            "status": "busy-unavailable",
            "extension": MEETING,
            "start": start,
            "end": end,
        }
        body["schedule"] = {"reference": name(self.of)}
        there = self.clinic.sql("select 1 from schedule_exceptions where id = %s", self.key)
        if not self.api and there:
            change = "update schedule_exceptions set start_at = %s, end_at = %s where id = %s"
            self.clinic.sql(change, start, end, self.key)
        elif not self.api:
            insert = "insert into schedule_exceptions (id, tenant_id, schedule_id, start_at, end_at) values"
            of, tenant = row_id(self.of), self.clinic.tenant
            self.clinic.sql(f"{insert} (%s, %s, %s, %s, %s)", self.key, tenant, of, start, end)
        elif there:
            assert self.clinic.put({**body, "id": f"exc-{self.key}"}).status_code == 200
        else:
            self.key = row_id(self.clinic.create(body))

    def delete(self) -> None:
        if self.api:
            assert self.clinic.http.delete(f"Slot/exc-{self.key}").status_code == 204
        else:
            self.clinic.sql("delete from schedule_exceptions where id = %s", self.key)


def _free(clinic: Clinic, of: Resource, day: str) -> list[str]:
    return [each["start"] for each in clinic.matches(f"Slot?schedule={name(of)}&start={day}&status=free&_sort=start")]


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_an_exception_over_the_change_takes_what_its_instants_cover(
    clinic: Clinic, zone: str, day: str, api: bool
) -> None:
    rule: list[Resource] = [{"url": "daysOfWeek", "valueCode": "sun"}]
    rule += [{"url": "startTime", "valueTime": "00:00:00"}, {"url": "endTime", "valueTime": "05:00:00"}]
    rule.append({"url": "slotMinutes", "valuePositiveInt": 30})
    of = clinic.schedule(zone, extension=[{"url": EXTENSION + "schedule-availability", "extension": rule}])
    generate = f"{name(of)}/$generate-slots?start={day}&end={day}"
    assert clinic.http.post(generate).status_code == 200
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    five = midnight.replace(hour=5)
    lasts = round((five.timestamp() - midnight.timestamp()) / 60)
    begins = datetime.fromtimestamp(midnight.timestamp(), ZoneInfo("UTC"))
    every = [(begins + timedelta(minutes=each)).isoformat().replace("+00:00", "Z") for each in range(0, lasts, 30)]
    assert _free(clinic, of, day) == every
    assert lasts != 300, "the clocks change that night"

    closed = Closed(clinic, of, api)
    # from half past one to a quarter past three by the clock on the wall, each with the offset of its own
    starts, ends = (midnight.replace(hour=hour, minute=minute) for hour, minute in ((1, 30), (3, 15)))
    covered = [each for each in every if each < _utc(ends) and later(each, 30) > _utc(starts)]
    closed.put(starts.isoformat(), ends.isoformat())
    assert _free(clinic, of, day) == [each for each in every if each not in covered]
    assert clinic.http.post(generate).json()["parameter"][0]["valueUnsignedInt"] == 0

    closed.put(every[0], every[1])
    assert _free(clinic, of, day) == every[1:]
    closed.delete()
    assert _free(clinic, of, day) == every


def _utc(moment: datetime) -> str:
    return datetime.fromtimestamp(moment.timestamp(), ZoneInfo("UTC")).isoformat().replace("+00:00", "Z")
