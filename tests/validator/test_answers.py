"""Everything that the server answered in this run is valid FHIR R4, says HAPI's validator, which has nothing of ours.

Runs after all other tests: they collect what is validated here.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import foreign
import received
from fhir_sched import profiles

# R4 as published means `noshow` where it says `no-show` in app-4, so a reason on a no-show fails there.
NO_SHOW = re.compile(r"app-4\b")
EXCUSED = re.compile(
    # What tests write as clients and get back as they wrote it: R4 allows it, HAPI asks for more.
    r"OIDs must be valid \(1\.2\.3\)"  # long enough for R4's expression
    r"|(Coding|Identifier)\.system must be an absolute reference"  # R4: should
    r"|Unknown code '[^']*#null'"  # a system alone
    # HAPI makes the snapshot of a definition that is itself the document from a package that it would have to fetch;
    # our definitions are proven by the extensions that are validated by them.
    r"|Error generating Snapshot: Unable to resolve package id hl7\.fhir\.r4\.core"
    # HAPI resolves references inside a Bundle; in a history a resource stands once for each version.
    r"|Multiple matches in bundle for reference"
    # A topic is written in R4 by extensions that are named after R5's elements; HAPI would have to fetch R5 for them.
    r"|extension-SubscriptionTopic\.\w+' is not valid \(invalid Version '5\.0'\)"
)
# A resource of which only some elements were asked for (_elements, _summary) breaks rules about the others.
INCOMPLETE = re.compile(r"app-3|cpb-\d+|ref-1|Unable to resolve resource with reference '#")


@dataclass(frozen=True)
class Fault:
    """One error in one document."""

    document: received.Document
    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}\n    {self.document}"

    @property
    def excused(self) -> bool:
        """Whether it is R4's own fault, HAPI's, or that of a client's own content."""
        misprinted = NO_SHOW.search(self.message) is not None and "noshow" in self.document.text
        partial = "SUBSETTED" in self.document.text and INCOMPLETE.search(self.message) is not None
        return misprinted or partial or EXCUSED.search(self.message) is not None


def appointment(**elements: Any) -> str:
    """An Appointment that is valid but for what the elements bring."""
    patient = {"actor": {"reference": "Patient/1"}, "status": "accepted"}
    times = {"start": "2026-06-02T09:00:00Z", "end": "2026-06-02T09:15:00Z"}
    return json.dumps(
        {"resourceType": "Appointment", "status": "booked", **times, "participant": [patient], **elements}
    )


ZONE = "http://fhir-sched.org/fhir/StructureDefinition/schedule-timezone"
SCHEDULE = {"resourceType": "Schedule", "actor": [{"reference": "Practitioner/1"}]}
VALID = [
    appointment(),
    json.dumps({**SCHEDULE, "extension": [{"url": ZONE, "valueCode": "Asia/Kathmandu"}]}),
    """<Slot xmlns="http://hl7.org/fhir"><schedule><reference value="Schedule/1"/></schedule><status value="free"/>
    <start value="2026-06-02T09:00:00Z"/><end value="2026-06-02T09:15:00Z"/></Slot>""",
]
WRONG = [
    appointment(status="taken"),
    appointment(strat="2026-06-02T09:00:00Z"),
    appointment(participant=[]),
    appointment(start="2026-06-02T09:00:00"),
    appointment(end=None),
    appointment(cancelationReason={"text": "x"}),
    json.dumps({**SCHEDULE, "extension": [{"url": ZONE, "valueString": "Asia/Kathmandu"}]}),
    '<Slot xmlns="http://hl7.org/fhir"><status value="free"/></Slot>',
    "{}",
]


def errors(documents: list[str], folder: Path) -> list[list[dict[str, str]]]:
    """The validator's errors of each document."""
    own = [json.dumps(each) for kind in profiles.definitions().values() for each in kind.values()]
    definitions = folder / "definitions.ndjson"
    definitions.write_text("".join(f"{each}\n" for each in own))
    lines = "".join(f"{json.dumps(each)}\n" for each in documents)
    command = [*foreign.java(), "org.fhirsched.Validate", str(definitions)]
    done = subprocess.run(command, check=False, input=lines, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(documents), done.stderr[-4000:]
    return found


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The errors of each document, ours and those of this run, from one start of the validator."""
    folder = received.folder()
    if folder is not None:
        assert received.take_over(folder), "the tests that ran before have handed over nothing"
    documents = [*VALID, *WRONG, *(each.text for each in received.documents()[: received.LIMIT])]
    return dict(zip(documents, errors(documents, tmp_path_factory.mktemp("validator")), strict=True))


@pytest.mark.after_all_others
def test_the_validator_knows_what_is_wrong(answered: dict[str, list[dict[str, str]]]) -> None:
    assert [answered[document] for document in VALID] == [[], [], []]
    assert [document for document in WRONG if not answered[document]] == []


@pytest.mark.after_all_others
def test_every_answer_of_this_run_is_valid(answered: dict[str, list[dict[str, str]]]) -> None:
    documents = received.documents()
    if not documents:
        pytest.skip("no test of this run spoke to the server")
    assert len(documents) <= received.LIMIT, "too many shapes to validate; find what tells them apart needlessly"
    faults = [
        Fault(document, each["location"], each["message"]) for document in documents for each in answered[document.text]
    ]
    real = [fault for fault in faults if not fault.excused]
    print(f"{len(documents)} documents, {len(faults) - len(real)} faults excused")
    assert not real, "\n".join(str(fault) for fault in real)
