"""A subscriber for tests: a real HTTP server that keeps the notifications that are posted to it.

What a Subscription has to say besides its topic stands in the test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson

from clinic import Clinic

Resource = dict[str, Any]
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
TOPIC = "http://fhir-sched.org/fhir/SubscriptionTopic/"
WAIT_S = 60.0


@dataclass
class Post:
    """One request: its headers and body."""

    headers: dict[str, str]
    body: bytes

    @property
    def bundle(self) -> Resource:
        """The notification."""
        found: Resource = orjson.loads(self.body)
        return found

    @property
    def kind(self) -> str:
        """handshake, heartbeat or event-notification."""
        return str(parameter(status(self.bundle), "type")["valueCode"])


@dataclass
class Subscriber:
    """Answers 200, or what `answers` says, one after the other (0: none at all, the connection is closed).

    With `hang` it reads and never answers.
    """

    posts: list[Post] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    default: int = 200
    hang: bool = False
    url: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Listens on a port of this machine."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/notify"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.hang = False
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        subscriber = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                code = subscriber.keep(Post({key.lower(): text for key, text in self.headers.items()}, body))
                while subscriber.hang:
                    time.sleep(0.05)
                if code == 0:
                    self.close_connection = True
                    return
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def keep(self, post: Post) -> int:
        """Keep a request; the status that answers it."""
        with self.changed:
            self.posts.append(post)
            self.changed.notify_all()
            return self.answers.pop(0) if self.answers else self.default

    def posted(self, count: int, kind: str = "") -> list[Post]:
        """The posts (of one kind), once there are that many; no more than a minute is waited for."""

        def found() -> list[Post]:
            return [post for post in self.posts if kind in ("", post.kind)]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, WAIT_S), [post.kind for post in self.posts]
            return found()

    def events(self, count: int) -> list[Resource]:
        """The events that were notified, in the order in which they came, once there are that many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.heard()) >= count, WAIT_S), self.heard()
            return self.heard()

    def distinct(self, count: int) -> list[Resource]:
        """The events without those that came again, once there are that many: who was killed sends what it had sent."""

        def found() -> list[Resource]:
            return list({each["number"]: each for each in self.heard()}.values())

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, WAIT_S), self.heard()
            return found()

    def heard(self) -> list[Resource]:
        """The events that were notified so far: number, and `Type/id` of the focus."""
        posts = [post for post in self.posts if post.kind == "event-notification"]
        return [event for post in posts for event in events(post.bundle)]

    def subscription(self, topic: str, *filters: str, content: str = "id-only", **channel: Any) -> Resource:
        """A Subscription of this subscriber to a topic of ours."""
        made: Resource = {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "a test",
            "criteria": TOPIC + topic,
            "channel": {
                "type": "rest-hook",
                "endpoint": self.url,
                "payload": "application/fhir+json",
                "_payload": {"extension": [{"url": BACKPORT + "backport-payload-content", "valueCode": content}]},
                **channel,
            },
        }
        if filters:
            said = [{"url": BACKPORT + "backport-filter-criteria", "valueString": each} for each in filters]
            made["_criteria"] = {"extension": said}
        return made


def status(bundle: Resource) -> Resource:
    """The Parameters that a notification begins with."""
    found: Resource = bundle["entry"][0]["resource"]
    return found


def parameter(parameters: Resource, name: str) -> Resource:
    """The one parameter (or part) of that name."""
    (found,) = [each for each in parameters["parameter"] if each["name"] == name]
    result: Resource = found
    return result


def events(bundle: Resource) -> list[Resource]:
    """Number and `Type/id` of the focus ("" without one) of each event of a notification."""
    listed = [each["part"] for each in status(bundle)["parameter"] if each["name"] == "notification-event"]
    return [
        {
            "number": int(next(part["valueString"] for part in parts if part["name"] == "event-number")),
            "focus": next(
                (
                    "/".join(part["valueReference"]["reference"].split("/")[-2:])
                    for part in parts
                    if part["name"] == "focus"
                ),
                "",
            ),
        }
        for parts in listed
    ]


def becomes(clinic: Clinic, resource: Resource, status: str) -> Resource:
    """The Subscription, once it has that status."""
    end = time.monotonic() + WAIT_S
    while (found := clinic.read(resource))["status"] != status:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def following(clinic: Clinic, subscriber: Subscriber, topic: str, *filters: str, content: str = "id-only") -> Resource:
    """An active Subscription."""
    made = clinic.create(subscriber.subscription(topic, *filters, content=content))
    return becomes(clinic, made, "active")
