"""The webhook sink: signed, retried, careful about where it goes; what a receiver refuses again and again is parked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest

from clinic import Clinic, name
from db import Database
from events.conftest import eventually, once, while_running
from events.receiver import Receiver
from fhir_sched import relaying
from fhir_sched.events import addresses, signature
from fhir_sched.events.sink import SinkError
from fhir_sched.events.webhook import EndpointError, PostError, Webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _unpublished(clinic: Clinic) -> int:
    ((count,),) = clinic.sql("select count(*) from outbox where not published")
    return int(count)


def test_an_event_is_one_signed_request(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    of = clinic.schedule()
    once(database, receiver.url, webhook_secret=SECRET)
    (request,) = receiver.got
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == request.event["id"]
    assert request.event["subject"] == name(of)
    signed = f"{request.event['id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{wanted}"


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    """The worked example that libraries of Standard Webhooks are tested with."""
    found = signature.headers(
        signature.keys(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_give_two_signatures_while_one_takes_the_other_s_place() -> None:
    found = signature.headers(signature.keys(f"{SECRET} other"), "id", 1, b"{}")["webhook-signature"].split()
    assert len(set(found)) == 2


def test_a_secret_that_is_no_base64_is_refused(database: Database) -> None:
    with pytest.raises(SinkError, match="WEBHOOK_SECRET"):
        once(database, "stdout:", webhook_secret="whsec_!")


def test_what_may_pass_is_tried_again_under_the_same_id_and_never_parked(
    clinic: Clinic, database: Database, receiver: Receiver
) -> None:
    passing = [301, 307, 408, 425, 429, 500, 503]
    for status in passing:
        clinic.schedule(comment=str(status))
    seen: Counter[str] = Counter()

    def answer(event: dict[str, Any]) -> tuple[int, dict[str, str]]:
        seen[event["id"]] += 1
        again = seen[event["id"]] == 1
        status = int(event["data"]["comment"]) if again else 204
        return status, {"Location": receiver.url.replace("hook", "elsewhere")} if status < 400 else {}

    receiver.answer = answer
    once(database, receiver.url, park_after=1)
    assert sorted(request.status for request in receiver.got) == sorted([*passing, *[204] * len(passing)])
    assert set(seen.values()) == {2}
    assert _unpublished(clinic) == 0


def test_a_receiver_that_asks_for_a_pause_gets_it(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    clinic.schedule()
    times: list[float] = []

    def answer(_: dict[str, Any]) -> tuple[int, dict[str, str]]:
        times.append(time.monotonic())
        return (429, {"Retry-After": "2"}) if len(times) == 1 else (204, {})

    receiver.answer = answer
    once(database, receiver.url)
    assert times[1] - times[0] >= 2


def test_an_event_that_is_refused_is_parked_and_the_others_flow(
    clinic: Clinic, database: Database, receiver: Receiver
) -> None:
    of = clinic.schedule()
    clinic.put({**of, "comment": "bad"})
    clinic.put({**of, "comment": "good"})
    other = clinic.schedule()
    receiver.answer = lambda event: (422 if event["data"].get("comment") == "bad" else 204, {})
    once(database, receiver.url)
    refused = [request.event["id"] for request in receiver.got if request.status == 422]
    assert len(refused) == 3
    assert len(set(refused)) == 1
    assert receiver.of(name(of)) == ["schedule.created", "schedule.updated"]
    assert receiver.of(name(other)) == ["schedule.created"]
    (parked,) = relaying.parked(database.app_url)
    assert (parked.event, parked.sink, parked.type) == (refused[0], receiver.url, "schedule.updated")
    assert (parked.refusals, parked.problem) == (3, "status 422")
    assert _unpublished(clinic) == 1
    # nothing is left to send but that, and another round leaves it alone
    once(database, receiver.url)
    assert len(receiver.got) == 6

    receiver.answer = lambda _: (204, {})
    assert relaying.resend(database.app_url, refused[0]) == 1
    once(database, receiver.url)
    assert receiver.taken[-1]["id"] == refused[0]
    assert _unpublished(clinic) == 0
    assert relaying.parked(database.app_url) == []


def test_while_an_event_is_refused_the_next_of_its_row_waits_and_other_rows_do_not(
    clinic: Clinic, database: Database, receiver: Receiver
) -> None:
    of = clinic.schedule()
    clinic.put({**of, "comment": "second"})
    other = clinic.schedule()
    refuse = True
    receiver.answer = lambda event: (400 if refuse and event["type"] == "schedule.created" and
                                     event["subject"] == name(of) else 204, {})  # fmt: skip

    async def work() -> None:
        nonlocal refuse
        await eventually(lambda: len([each for each in receiver.got if each.status == 400]) >= 3)
        assert receiver.of(name(other)) == ["schedule.created"]
        assert receiver.of(name(of)) == []
        refuse = False
        await eventually(lambda: len(receiver.of(name(of))) == 2)

    while_running(database, receiver.url, work=work, park_after=100)
    assert receiver.of(name(of)) == ["schedule.created", "schedule.updated"]


def test_an_event_at_which_a_receiver_always_fails_holds_its_own_row_up_alone(
    clinic: Clinic, database: Database, receiver: Receiver
) -> None:
    of = clinic.schedule()
    failing = True
    receiver.answer = lambda event: (500 if failing and event["subject"] == name(of) else 204, {})

    async def work() -> None:
        nonlocal failing
        await eventually(lambda: len(receiver.got) >= 2)
        for number in range(1, 4):
            await asyncio.to_thread(clinic.schedule)
            await eventually(partial(lambda wanted: len(receiver.taken) == wanted, number))
        failing = False
        await eventually(lambda: receiver.of(name(of)) == ["schedule.created"])

    while_running(database, receiver.url, work=work, park_after=1)


def test_a_sink_that_is_down_holds_no_other_up(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    down = True
    receiver.answer = lambda _: (500 if down else 204, {})
    with Receiver() as healthy:

        async def work() -> None:
            nonlocal down
            for _ in range(5):
                await asyncio.to_thread(clinic.schedule)
            await eventually(lambda: len(healthy.taken) == 5)
            assert _unpublished(clinic) == 5
            of = healthy.taken[0]["data"]
            await asyncio.to_thread(clinic.put, {**of, "comment": "later"})
            await eventually(lambda: len(healthy.taken) == 6)
            down = False
            await eventually(lambda: _unpublished(clinic) == 0)

        while_running(database, receiver.url, healthy.url.replace("hook", "other"), work=work)
        assert Counter(event["id"] for event in healthy.taken) == Counter(event["id"] for event in receiver.taken)
        for subject in {event["subject"] for event in healthy.taken}:
            assert receiver.of(subject) == healthy.of(subject)


def test_a_sink_that_hangs_holds_no_other_up(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/"

        async def work() -> None:
            for number in range(1, 4):
                await asyncio.to_thread(clinic.schedule)
                await eventually(partial(lambda wanted: len(receiver.taken) == wanted, number))

        while_running(database, hanging, receiver.url, work=work)
        assert _unpublished(clinic) == 3


def test_a_sink_that_is_no_more_is_given_up_by_its_name(clinic: Clinic, database: Database, receiver: Receiver) -> None:
    clinic.schedule()
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"http://127.0.0.1:{server.getsockname()[1]}/"

    async def work() -> None:
        await eventually(lambda: len(receiver.taken) == 1)

    while_running(database, gone, receiver.url, work=work)
    assert _unpublished(clinic) == 1
    assert relaying.forget(database.app_url, gone) == 1
    assert _unpublished(clinic) == 0


# where webhooks may go


@pytest.mark.parametrize(
    "url",
    [
        "http://portal.example/hook",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://10.1.2.3:8443/",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/",
        "https://a.localhost/",
        "https://me:word@portal.example/",
        "https://portal.example/#part",
        "https:///hook",
        "https://portal.example:port/",
        "https://portal.example/a b",
    ],
)
def test_a_url_inside_the_private_network_or_without_tls_is_refused_at_start(database: Database, url: str) -> None:
    with pytest.raises(SinkError):
        once(database, url, allow_private_endpoints=False)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "100.64.0.1", "192.168.0.1", "224.0.0.1", "fc00::1", "fe80::1", "64:ff9b::a00:1", "2002:a00:1::"],
)
def test_addresses_that_are_not_of_the_public_internet_are_known(address: str) -> None:
    assert not addresses.is_public(address)


async def _connected_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Post to a name that resolves to these addresses, one at each look."""
    resolved = iter(answers)

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(resolved), port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    client = Webhooks(timeout_s=5)
    try:
        await client.check_address("https://portal.example/")
        await client.post("https://portal.example/", {}, b"{}")
    finally:
        await client.close()


def test_a_name_that_leads_to_a_private_address_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointError, match="private"):
        asyncio.run(_connected_to(monkeypatch, "10.0.0.1"))


def test_a_name_that_changes_its_mind_after_the_check_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PostError, match="private"):
        asyncio.run(_connected_to(monkeypatch, "93.184.216.34", "127.0.0.1"))
