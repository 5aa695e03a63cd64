"""Relays are killed, sinks fail in every way, PostgreSQL goes away: nothing is missing, every row's order is kept."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from events.receiver import Receiver, Request
from faults.conftest import Scale
from faults.relayed import Changes, Relays, Told, answering, violations
from faults.test_kills import POSTGRES_WAYS
from faults.world import World, eventually


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server that takes events."""
    with Receiver() as running:
        yield running


def _checked(changes: Changes, receiver: Receiver, *, least: int) -> None:
    written = changes.written()
    found = violations(written, [request for request in receiver.got if request.status < 300])
    if found:
        pytest.fail(f"{len(found)} violations:\n" + "\n".join(found[:40]), pytrace=False)
    assert len(written) >= least


def _tell(capsys: pytest.CaptureFixture[str], what: str, changes: Changes, receiver: Receiver) -> None:
    repeats = len(receiver.got) - len({request.event["id"] for request in receiver.got})
    with capsys.disabled():
        print(f"\n{what}: {len(changes.written())} events, {repeats} sent more than once", end="")


def test_a_relay_that_is_killed_between_publishing_and_marking_loses_nothing(
    world: World, receiver: Receiver, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    """The receiver kills the relay in the middle of an event: before it answers, or when it has answered."""
    changes = Changes(world, paced=True)
    relays = Relays(world, receiver.url)
    until = 0

    def perhaps_kill() -> None:
        if len(receiver.got) >= until:
            relays.kill()

    try:
        with changes.going_on():
            for _ in range(scale.relay_kills):
                # a relay marks 64 at once: some are killed before it has marked any, some later
                until = len(receiver.got) + random.randint(1, 200)
                answering(receiver, {204: 1}, on_event=perhaps_kill)
                process = relays.start()
                assert process.wait(60) != 0
                relays.bury()
        answering(receiver, {204: 1})
        relays.drain()
    finally:
        relays.end()
    repeated = len(receiver.got) - len({request.event["id"] for request in receiver.got})
    assert repeated > 0
    _checked(changes, receiver, least=scale.relay_kills)
    _tell(capsys, f"a relay killed {scale.relay_kills} times", changes, receiver)


def test_two_relays_of_which_one_or_the_other_is_killed_keep_the_order(
    world: World, receiver: Receiver, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = Changes(world, rows=200, rate=1000, paced=True)
    relays = Relays(world, receiver.url)
    answering(receiver, {204: 1})
    try:
        with changes.going_on():
            for _ in range(max(scale.relay_kills // 5, 1)):
                while len(relays.running) < 2:
                    relays.start()
                seen = len(receiver.got) + random.randint(20, 200)
                eventually(lambda seen=seen: len(receiver.got) > seen, "events arrive")  # type: ignore[misc]
                relays.kill()
                eventually(lambda: any(each.poll() is not None for each in relays.running), "one is dead")
                relays.bury()
        relays.drain()
    finally:
        relays.end()
    _checked(changes, receiver, least=100)
    _tell(capsys, "two relays, one killed again and again", changes, receiver)


def test_a_receiver_that_is_slow_down_failing_or_hanging_misses_nothing(
    world: World, receiver: Receiver, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside it a file takes everything at once, and is held up by nothing."""
    changes = Changes(world, rate=20 if scale.sink_down_s > 60 else 100)
    with Receiver() as healthy:
        relays = Relays(world, receiver.url, healthy.url.replace("hook", "healthy"), park_after="1000")
        try:
            relays.start()
            with changes.going_on():
                for statuses, slow_s in (
                    ({500: 1}, 0.0),
                    ({204: 3, 500: 1, 429: 1, 408: 1, 404: 1}, 0.0),
                    ({204: 1}, 0.3),
                    ({204: 1, 503: 1}, 3.0),
                ):
                    answering(receiver, statuses, slow_s)
                    before = len(healthy.got)
                    time.sleep(scale.sink_down_s if 204 not in statuses else min(scale.sink_down_s, 10))
                    eventually(lambda before=before: len(healthy.got) > before, "the healthy one hears")  # type: ignore[misc]
            answering(receiver, {204: 1})
            relays.drain()
        finally:
            relays.end()
        _checked(changes, healthy, least=50)
    _checked(changes, receiver, least=50)
    _tell(capsys, "a receiver that fails", changes, receiver)


def test_a_postgresql_that_is_killed_under_a_relay_loses_no_event(
    world: World, receiver: Receiver, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = Changes(world)
    relays = Relays(world, receiver.url)
    answering(receiver, {204: 1})
    try:
        process = relays.start()
        with changes.going_on():
            for cycle in range(max(scale.postgres_kills // 3, 2)):
                seen = len(receiver.got)
                eventually(lambda seen=seen: len(receiver.got) > seen, "events arrive again")  # type: ignore[misc]
                time.sleep(random.uniform(0.05, 0.2))
                world.kill_postgres(POSTGRES_WAYS[cycle % len(POSTGRES_WAYS)])
                world.start_postgres()
        relays.drain()
        assert process.poll() is None
    finally:
        relays.end()
    _checked(changes, receiver, least=10)
    _tell(capsys, "PostgreSQL killed", changes, receiver)


# the checker finds what it looks for


def _request(event: str, body: bytes = b"") -> Request:
    return Request({"webhook-id": event}, body or b'{"id": "%b"}' % event.encode(), 204)


WRITTEN = [Told("a1", "a", published=True), Told("b1", "b", published=True), Told("a2", "a", published=True)]
ALL = [_request("b1"), _request("a1"), _request("a2")]


def test_repeats_and_any_order_between_rows_are_well() -> None:
    assert violations(WRITTEN, [*ALL, *ALL]) == []


@pytest.mark.parametrize(
    ("written", "arrived", "said"),
    [
        (WRITTEN, ALL[:2], "a2 never arrived"),
        (WRITTEN, [ALL[0], ALL[2], ALL[1]], "event 2 of a arrived when 0 had"),
        (WRITTEN, [*ALL, _request("c1")], "c1 is no event of the outbox"),
        (WRITTEN, [*ALL, _request("a1", b'{"id": "a1", "x": 1}')], "a1 was another event when it was repeated"),
        ([*WRITTEN[:2], replace(WRITTEN[2], published=False)], ALL, "a2 is not published"),
    ],
)
def test_the_checker_finds(written: list[Told], arrived: list[Request], said: str) -> None:
    assert violations(written, arrived) == [said]
