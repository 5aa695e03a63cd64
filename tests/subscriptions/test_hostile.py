"""Endpoints that do harm: each is a failure of its own Subscription, soon and without much being read."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clinic import Clinic, name
from subscriber import Subscriber, becomes, following

Misdeed = Callable[[Any], None]
HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def endpoint(misdeed: Misdeed) -> Iterator[str]:
    """The URL of a server that reads what comes and then does that with the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.recv(65536)
                misdeed(self.request)
            except OSError:
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/notify"
        finally:
            server.shutdown()
            thread.join()


def endless(connection: Any) -> None:
    """An answer that never ends, as fast as it is read."""
    connection.sendall(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def long_head(connection: Any) -> None:
    """Headers that never end."""
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"X-Very-Long: " + b"x" * 8192 + b"\r\n")


def drip(connection: Any) -> None:
    """A byte now and then."""
    for byte in HEAD * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


MISDEEDS: dict[str, tuple[Misdeed, str]] = {
    "an endless answer": (endless, "500"),
    "an endless head": (long_head, "no answer"),
    "a byte now and then": (drip, "no answer in time"),
    "closed at once": (lambda connection: connection.close(), "no answer"),
    "closed in the head": (lambda connection: connection.sendall(HEAD), "no answer"),
    "no HTTP": (lambda connection: connection.sendall(b"SSH-2.0-x\r\n\r\n"), "no answer"),
    "gone": (lambda connection: connection.sendall(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), "410"),
    "elsewhere": (
        lambda connection: connection.sendall(
            b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        ),
        "307",
    ),
    "informational only": (lambda connection: connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer"),
    "status 999": (lambda connection: connection.sendall(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"), "999"),
}


@pytest.mark.parametrize(("misdeed", "said"), MISDEEDS.values(), ids=MISDEEDS)
def test_what_an_endpoint_does_is_a_failure_of_its_own_subscription(
    clinic: Clinic, subscriber: Subscriber, misdeed: Misdeed, said: str
) -> None:
    other = following(clinic, subscriber, "appointment-changed")
    with endpoint(misdeed) as url:
        asked = subscriber.subscription("appointment-changed")
        asked["channel"]["endpoint"] = url
        asked["channel"]["extension"] = [
            {
                "url": "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-timeout",
                "valueUnsignedInt": 1,
            }
        ]
        began = time.monotonic()
        made = clinic.create(asked)
        booked = clinic.booked()
        assert [each["focus"] for each in subscriber.events(1)] == [name(booked)]
        assert said in becomes(clinic, made, "error")["error"]
        assert time.monotonic() - began < 20
    assert clinic.read(other)["status"] == "active"


@pytest.mark.parametrize("what", ["deleted", "off"])
def test_what_is_deleted_or_turned_off_while_it_is_told_something_stays_so(
    clinic: Clinic, subscriber: Subscriber, what: str
) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    subscriber.hang = True
    clinic.booked()
    subscriber.posted(1, "event-notification")
    if what == "deleted":
        assert clinic.http.delete(name(made)).status_code == 204
    else:
        assert clinic.put(made | {"status": "off"}).status_code == 200
    subscriber.hang = False
    other = following(clinic, subscriber, "appointment-changed", "Appointment?status=booked")
    clinic.booked(start="2026-06-02T10:00:00Z", end="2026-06-02T10:15:00Z")
    subscriber.events(2)
    assert clinic.read(other)["status"] == "active"
    if what == "deleted":
        assert clinic.http.get(name(made)).status_code == 410
    else:
        assert clinic.read(made)["status"] == "off"
    assert [each["number"] for each in subscriber.heard()] == [1, 1]
