"""Clients in JavaScript and Java, each walking through our server in a process of its own.

The SMART JavaScript client, fhir-kit-client, Medplum's client and HAPI's client in JSON and XML; each prints what went
well.
"""

from __future__ import annotations

import subprocess

import foreign
from clients.opening import Opening

STEPS = [
    "capability",
    "free slots",
    "book",
    "update",
    "stale version",
    "patch",
    "history",
    "conditional create",
    "batch",
    "delete",
]
HAPI = [*STEPS, "find and book"]


def walked(command: list[str]) -> list[str]:
    """The steps that the program says went well; what it complains of is an assertion's message."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"after {done.stdout.splitlines()}: {done.stderr[-4000:]}"
    return done.stdout.splitlines()


def test_the_smart_javascript_client(opening: Opening) -> None:
    assert walked([*foreign.javascript("smart.mjs"), opening.base, opening.schedule]) == STEPS


def test_fhir_kit_client(opening: Opening) -> None:
    assert walked([*foreign.javascript("kit.mjs"), opening.base, opening.schedule]) == STEPS


def test_the_medplum_client(opening: Opening) -> None:
    assert walked([*foreign.javascript("medplum.mjs"), opening.base, opening.schedule]) == STEPS


def test_the_hapi_client_in_json(opening: Opening) -> None:
    assert walked([*foreign.java(), "org.fhirsched.Walk", opening.base, opening.schedule, "json"]) == HAPI


def test_the_hapi_client_in_xml(opening: Opening) -> None:
    assert walked([*foreign.java(), "org.fhirsched.Walk", opening.base, opening.schedule, "xml"]) == HAPI
