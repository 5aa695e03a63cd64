"""What docs/ shows is so: the searches of search.md and the conversation of booking.md, against a running server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from clinic import Clinic
from db import Database
from server import Server

DOCS = Path(__file__).parent.parent / "docs"
NAME = re.compile(r"<([a-z-]+)>")


def _blocks(document: str) -> list[str]:
    text = (DOCS / document).read_text(encoding="utf-8")
    return re.findall(r"^```http\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _searches() -> list[tuple[str, int]]:
    """Each search of search.md with the status that it promises."""
    lines = (line.partition("    # ") for block in _blocks("search.md") for line in block.splitlines())
    return [(request.removeprefix("GET "), int(status or 200)) for request, _, status in lines]


@pytest.fixture(scope="module")
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant for this module."""
    made = Clinic(server, database)
    yield made
    made.close()


@pytest.mark.parametrize(("query", "status"), _searches())
def test_a_search_of_the_page_is_understood_or_refused_as_it_says(clinic: Clinic, query: str, status: int) -> None:
    answer = clinic.http.get(query.replace("+", "%2B").replace("|", "%7C"))
    assert answer.status_code == status, answer.text


def test_what_the_page_calls_ignored_is_said_in_the_bundle(clinic: Clinic) -> None:
    (ignored,) = (block for block in _blocks("search.md") if "statsu" in block)
    for line in ignored.splitlines()[:2]:
        bundle = clinic.bundle(line.removeprefix("GET "))
        assert [entry["search"]["mode"] for entry in bundle["entry"]] == ["outcome"]
        assert bundle["link"][0]["url"].endswith("/Slot")


class Conversation:
    """Requests and answers of a page, in order; `known` are the ids behind the names in angle brackets."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.known: dict[str, str] = {}

    def exchange(self, block: str) -> None:
        """Send the request of a block and compare the answer with the one that is shown."""
        asked, _, shown = block.partition("\n\n")
        line, *rest = self._filled(asked).split("\n")
        headers = dict(each.split(": ", 1) for each in rest if re.match(r"[A-Z][\w-]+: ", each))
        body = "\n".join(rest[len(headers) :])
        method, path = line.split(" ")
        headers["Content-Type"] = "application/json-patch+json" if method == "PATCH" else "application/fhir+json"
        answer = self.clinic.http.request(method, path, content=body, headers=headers)
        status, _, expected = shown.partition("\n")
        assert f"{answer.status_code} {answer.reason_phrase}" == status, f"{asked}\n\n{answer.text}"
        if answer.headers.get("content-type") == "application/fhir+ndjson":
            lines = {each["id"]: each for each in map(json.loads, answer.text.splitlines())}
            for mine in map(json.loads, expected.splitlines()):
                self._compare(mine, lines[self._filled(mine["id"])], line)
        elif expected.strip():
            self._compare(json.loads(expected), answer.json(), line)

    def _filled(self, text: str) -> str:
        return NAME.sub(lambda found: self.known[found[1]], text)

    def _compare(self, shown: Any, got: Any, where: str) -> None:
        """`shown` is a part of what came; a name that is new stands for whatever came."""
        match shown:
            case dict():
                for key, value in shown.items():
                    self._compare(value, got.get(key), f"{where} {key}")
            case list():
                assert len(shown) == len(got), where
                for mine, theirs in zip(shown, got, strict=True):
                    self._compare(mine, theirs, where)
            case str() if (name := NAME.fullmatch(shown)) and name[1] not in self.known:
                self.known[name[1]] = got
            case str():
                assert self._filled(shown) == got, where
            case _:
                assert shown == got, where


@pytest.mark.parametrize(("page", "exchanges"), [("booking.md", 21), ("availability.md", 6), ("rules.md", 3)])
def test_the_conversation_of_a_page_is_answered_as_it_is_shown(clinic: Clinic, page: str, exchanges: int) -> None:
    conversation = Conversation(clinic)
    blocks = _blocks(page)
    assert len(blocks) >= exchanges
    for block in blocks:
        conversation.exchange(block)


def _eventually(look: Callable[[], object]) -> None:
    """Wait until there is something."""
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def test_the_conversation_about_scheduling_is_answered_as_it_is_shown(database: Database, tmp_path: Path) -> None:
    page = (DOCS / "scheduling.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tenant,) = json.loads(shown)
    file = tmp_path / "publish.json"
    file.write_text(shown)
    with Server(database.app_url, publish_tenants=tenant, publish_file=str(file)) as publishing:
        clinic = Clinic(publishing, database, UUID(tenant))
        conversation = Conversation(clinic)
        for block in _blocks("scheduling.md"):
            if "status=pending" in block:  # an offer comes right after, not with the answer before
                offers = f"Appointment?supporting-info=Appointment/{conversation.known['sams']}"
                _eventually(partial(clinic.found, offers))
            conversation.exchange(block)
        clinic.close()
