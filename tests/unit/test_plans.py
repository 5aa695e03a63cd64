"""Which searches say that one plan is good for all their values."""

from __future__ import annotations

import pytest

from fhir_sched.resources import RESOURCES
from fhir_sched.search import sql
from fhir_sched.search.parse import Parser
from fhir_sched.search.values import form

TENANT = "5eed0000-0000-4000-8000-000000000001"
ID = "205c52cc-d9f6-6058-6f6f-b644f497fb09"


@pytest.mark.parametrize(
    ("search", "steady"),
    [
        (f"Slot?schedule=Schedule/sch-{ID}&status=free&start=ge2030-01-05T00:00:00Z&_sort=start", True),
        (f"Slot?schedule.actor=Practitioner/{ID}&status=free&start=2030-01-05", True),
        (f"Appointment?patient=Patient/{ID}&_sort=-date", True),
        (f"Slot?_id=slt-{ID}", True),
        # the values decide
        ("Appointment?status=waitlist,proposed", False),
        ("Slot?_lastUpdated=ge2030-01-05&_sort=start", False),
        (f"Slot?schedule=Schedule/sch-{ID}&start=ge2030-01-05&_sort=-_lastUpdated", False),
        (f"Appointment?actor={ID}", False),
        ("Slot?status:not=free", False),
        ("Slot?specialty=http://example.org|1", False),
        ("Slot?schedule.active=true", False),
        (f"Schedule?_has:Slot:schedule:_id=slt-{ID}", False),
    ],
)
def test_a_statement_is_planned_once_only_where_its_values_do_not_matter(search: str, steady: bool) -> None:
    name, _, asked = search.partition("?")
    query = Parser(RESOURCES, "http://x/fhir/t", TENANT).query(RESOURCES[name], form(asked), strict=True)
    fragment = sql.search(query, TENANT).fragment
    assert fragment is not None
    assert fragment.steady is steady
