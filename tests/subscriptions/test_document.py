"""What docs/subscriptions.md shows is so: requests, answers and notifications, in their order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clinic import Clinic
from subscriber import Subscriber, becomes

PAGE = Path(__file__).parents[2] / "docs" / "subscriptions.md"
BLOCK = re.compile(r"^```(http|notification)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"<([a-z-]+)>")
ENDPOINT = "https://portal.example.org/notify"


class Page:
    """The conversation; `known` is what stands behind the names in angle brackets."""

    def __init__(self, clinic: Clinic, subscriber: Subscriber) -> None:
        self.clinic, self.subscriber = clinic, subscriber
        self.known = {"base": clinic.base}
        self.heard = 0

    def exchange(self, block: str) -> None:
        """Send the request and compare the answer."""
        asked, _, shown = self._filled(block.replace(ENDPOINT, self.subscriber.url)).partition("\n\n")
        line, _, body = asked.partition("\n")
        method, path = line.split(" ")
        kind = "application/json-patch+json" if method == "PATCH" else "application/fhir+json"
        answer = self.clinic.http.request(method, path, content=body, headers={"Content-Type": kind})
        status, _, expected = shown.partition("\n")
        assert f"{answer.status_code} {answer.reason_phrase}" == status, answer.text
        self._compare(json.loads(expected), answer.json(), line)

    def notified(self, block: str) -> None:
        """Wait for the next notification and compare it."""
        self.heard += 1
        post = self.subscriber.posted(self.heard)[-1]
        assert post.headers["authorization"] == "Bearer of-the-portal"
        self._compare(json.loads(self._filled(block)), post.bundle, "notification")
        if post.kind == "handshake":
            becomes(self.clinic, {"resourceType": "Subscription", "id": self.known["subscription"]}, "active")

    def _filled(self, text: str) -> str:
        return NAME.sub(lambda found: self.known.get(found[1], found[0]), text)

    def _compare(self, shown: Any, got: Any, where: str) -> None:
        match shown:
            case dict():
                for key, value in shown.items():
                    self._compare(value, got.get(key), f"{where} {key}")
            case list():
                assert len(shown) == len(got), (where, got)
                for mine, theirs in zip(shown, got, strict=True):
                    self._compare(mine, theirs, where)
            case str() if name := NAME.fullmatch(shown):
                self.known[name[1]] = got
            case _:
                assert shown == got, where


def test_the_page_is_answered_and_notified_as_it_is_shown(clinic: Clinic, subscriber: Subscriber) -> None:
    page = Page(clinic, subscriber)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 8
    for kind, block in blocks:
        (page.exchange if kind == "http" else page.notified)(block)
