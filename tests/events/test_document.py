"""What docs/events.md shows is so: its events, its commands, its receiver; and the README's sink."""

from __future__ import annotations

import base64
import hmac
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clinic import Clinic, name
from db import Database
from events.conftest import once
from fhir_sched.cli import main
from fhir_sched.events import signature, sinks
from fhir_sched.settings import PREFIX

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACEHOLDER = re.compile(r"<[a-z]+>")


def _blocks(language: str, text: str = TEXT) -> list[tuple[str, str]]:
    """What stands behind the language, and the block itself."""
    return re.findall(rf"^```{language}\b ?(.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _matches(shown: Any, found: Any) -> None:
    match shown:
        case dict():
            assert list(shown) == list(found)
            for key, value in shown.items():
                _matches(value, found[key])
        case list():
            assert len(shown) == len(found)
            for one, other in zip(shown, found, strict=True):
                _matches(one, other)
        case str() if PLACEHOLDER.search(shown):
            pattern = "[^/]+".join(re.escape(part) for part in PLACEHOLDER.split(shown))
            assert re.fullmatch(pattern, found), (shown, found)
        case _:
            assert shown == found


@pytest.mark.parametrize(("said", "block"), _blocks("json"))
def test_an_event_looks_as_it_is_shown(clinic: Clinic, database: Database, lines: Path, said: str, block: str) -> None:
    clinic.booked(clinic.slot(clinic.schedule(), "2031-01-01T09:00:00Z"))
    options = dict(part.split("=") for part in said.split())
    kind = options.pop("event")
    settings = {"event_payload": options["payload"]} if options else {}
    once(database, f"file://{lines}", public_url="https://fhir.example", **settings)
    (event,) = [each for each in map(json.loads, lines.read_text().splitlines()) if each["type"] == kind]
    _matches(json.loads(block), event)


@pytest.mark.parametrize("command", [line for _, block in _blocks("sh") for line in block.splitlines()])
def test_a_command_is_understood(clinic: Clinic, database: Database, command: str) -> None:
    program, *arguments = command.split()
    assert program == "fhir-sched"
    runner = CliRunner(env={f"{PREFIX}DATABASE_URL": database.app_url, f"{PREFIX}DATA_DIR": ""})
    done = runner.invoke(main, [*arguments, "--help"] if "--once" in arguments else arguments)
    # nothing is parked, which `resend` says with 1
    assert done.exit_code == (1 if "resend" in arguments else 0), done.output


def test_the_receiver_s_check_knows_what_is_genuine() -> None:
    ((_, block),) = _blocks("python")
    space: dict[str, Any] = {"base64": base64, "hmac": hmac}
    exec(block, space)
    is_genuine: Callable[..., bool] = space["is_genuine"]
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signature.headers(signature.keys(f"other {secret}"), "id", 1, b"{}")
    assert is_genuine(headers, b"{}", secret)
    assert not is_genuine(headers, b"{ }", secret)


def test_the_sink_of_the_page_is_a_sink(clinic: Clinic, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    syslog = types.ModuleType("syslog")
    monkeypatch.setattr(syslog, "syslog", heard.append, raising=False)
    monkeypatch.setitem(sys.modules, "syslog", syslog)
    ((_, block),) = _blocks("python", README)
    space: dict[str, Any] = {"syslog": syslog}
    exec(block, space)
    monkeypatch.setitem(sinks.KINDS, "syslog", space["SyslogSink"])
    of = clinic.schedule()
    once(database, "syslog:")
    assert [json.loads(line)["subject"] for line in heard] == [name(of)]
