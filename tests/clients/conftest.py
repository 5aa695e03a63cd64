"""What a client of another maker walks through: a tenant of the running server with one schedule of free slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients.opening import SLOTS, Opening
from clinic import Clinic, later, name, slot
from db import Database
from server import Server

START = "2036-06-02T08:00:00Z"


@pytest.fixture
def opening(server: Server, database: Database) -> Iterator[Opening]:
    """A schedule with 25 free slots, in a tenant without anything else."""
    clinic = Clinic(server, database)
    plan = clinic.schedule()
    slots = (slot(plan, later(START, 15 * nth)) for nth in range(SLOTS))
    entry = [{"resource": each, "request": {"method": "POST", "url": "Slot"}} for each in slots]
    answer = clinic.http.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entry})
    assert answer.status_code == 200, answer.text
    yield Opening(clinic.base, name(plan))
    clinic.close()
