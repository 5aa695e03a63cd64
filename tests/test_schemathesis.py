"""Schemathesis on the running server, with all its default checks: requests that fit the OpenAPI document or do not.

Deterministic and bounded. Each phase has its share: examples and coverage of every parameter, random requests, and
chains of requests along the document's links. The database is durable, as that of a server that is ready must be.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fhir_sched import demo
from fhir_sched.db import embedded, migrations
from fhir_sched.settings import load
from server import Server

PROGRAM = Path(sys.executable).with_name("st")
TENANT = load().demo_tenant
TIMEOUT_S = 240

# A schema can't say all of R4 and nothing of scheduling: what fits it may still break an invariant (400), name an id
# that never was (405), a version that is not current (412), a rule (422), or a row that another request deleted (410).
# A request that is wrong in one part may first be refused for another.
SETTINGS = f"""
[parameters]
tenant = "{TENANT}"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "400", "403", "404", "405", "409", "410", "412", "422"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "410", "412", "413", "414", "415", "422"]

# What was deleted keeps its history (R4 3.1.0.11).
[[operations]]
include-path-regex = "_history"
checks.use_after_free.enabled = false

# Thousands of bodies each, which differ in elements that validation has tests for. The create of a Slot stays.
[[operations]]
include-method = ["PUT", "PATCH"]
phases.coverage.enabled = false

[[operations]]
include-method = "POST"
exclude-path-regex = "/(Slot|_search)$"
phases.coverage.enabled = false
"""


@dataclass(frozen=True)
class Run:
    """What a run said, and the answers it got: (operation, status)."""

    output: str
    code: int
    answers: Counter[tuple[str, int]]


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with demo data on a durable PostgreSQL."""
    directory = tmp_path_factory.mktemp("durable")
    with embedded.start(directory, purpose="tests") as cluster:
        migrations.migrate(cluster.admin_url)
        demo.load(cluster.app_url, TENANT)
        with Server(cluster.app_url) as server:
            yield server


@pytest.fixture(scope="module")
def document(durable: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's own document with ids that exist in its examples; without the XML bodies that it can't describe."""
    text = durable.client.get("/openapi.json").text
    for kind, query in (("Schedule", {"_sort": "_id"}), ("Slot", {"status": "free"})):
        bundle = durable.client.get(f"/fhir/{TENANT}/{kind}", params={**query, "_count": "1"}).json()
        reference = f"{kind}/{bundle['entry'][0]['resource']['id']}"
        text = re.sub(f"{reference[:-37]}-[0-9a-f-]{{36}}", reference, text)
    served = json.loads(text)
    for item in served["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                operation["requestBody"]["content"].pop("application/fhir+xml", None)
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_text(json.dumps(served))
    return path


def run(durable: Server, document: Path, directory: Path, phases: str, examples: int) -> Run:
    """One run of Schemathesis."""
    settings, report = directory / "schemathesis.toml", directory / "report.ndjson"
    settings.write_text(SETTINGS)
    command: list[Any] = [PROGRAM, "--config-file", settings, "run", document, "--url", durable.url]
    command += ["--phases", phases, "-n", examples, "--generation-deterministic"]
    command += ["--no-shrink", "--no-color", "--warnings", "off", "--report", "ndjson", "--report-ndjson-path", report]
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, cwd=directory, timeout=TIMEOUT_S, check=False
    )
    assert report.exists(), done.stdout + done.stderr
    return Run(done.stdout + done.stderr, done.returncode, Counter(answers(report)))


def answers(report: Path) -> Iterator[tuple[str, int]]:
    """Each operation and the status that it was answered with."""
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        cases = recorder.get("cases", {})
        for name, interaction in recorder.get("interactions", {}).items():
            if interaction.get("response"):
                case = cases[name]["value"]
                yield f"{case['method']} {case['path']}", interaction["response"]["status_code"]


@pytest.mark.parametrize(("phases", "examples"), [("examples,fuzzing", 4), ("coverage", 1), ("stateful", 5)])
def test_no_check_fails(durable: Server, document: Path, tmp_path: Path, phases: str, examples: int) -> None:
    done = run(durable, document, tmp_path, phases, examples)
    assert done.code == 0, done.output[-20_000:]
    statuses = Counter[int]()
    for (_, status), count in done.answers.items():
        statuses[status] += count
    assert not [status for status in statuses if status >= 500]
    # It was no run against closed doors: things were made, found and refused.
    assert statuses[201] >= 1
    assert statuses[200] >= 5
    assert statuses[400] + statuses[422] >= 3
    print(f"{phases}: {sum(statuses.values())} requests, {sorted(statuses.items())}")
