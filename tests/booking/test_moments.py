"""The random games of `game.py` do not depend on the moment at which the server lets a hold lapse.

Each of these made a game fail once in hundreds, when the server's look at what is over fell between two of the game's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Timer
from typing import Any
from uuid import UUID

import pytest

from db import Database
from game import Game
from server import Server


@pytest.fixture
def game(server: Server, database: Database) -> Iterator[Game]:
    """One with a slot, which a hold has that is over."""
    played = type("Played", (Game,), {"server": server, "database": database})()
    try:
        played.open()
        played.add_slot(number=0, start=2, length=2, capacity=1, api=False)
        played.hold(numbers=[0], doctor=0)
        yield played
    finally:
        played.teardown()


def _agrees(game: Game) -> None:
    game.the_tables_hold_what_the_model_holds()
    game.no_law_is_broken()


def _lapsed_by_the_server(game: Game) -> None:
    """Wait until the server has let the only hold lapse, of which the model does not know yet."""
    deadline = time.monotonic() + 30
    while game.other.execute("select from appointments where status = 'pending' and id = %s", [_only(game)]).rowcount:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _only(game: Game) -> UUID:
    (key,) = game.diary.visits
    return key


def test_the_server_is_just_letting_it_lapse(game: Game, database: Database) -> None:
    game.other.execute("begin")
    game.let_time_pass(number=0)
    with database.connect_admin() as server:
        server.execute("begin")
        game.other.execute("commit")
        server.execute("select fhir_sched_lapse_holds(%s, null)", [game.clinic.tenant])
        commit = Timer(0.5, server.execute, ["commit"])
        commit.start()
        game.clean_up()
        _agrees(game)
        commit.join()


def test_it_lapses_between_two_looks_of_the_game(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    game.other.execute("begin")
    game.let_time_pass(number=0)
    looks = game.other.execute

    def look(statement: Any, values: Any = None) -> Any:
        found = looks(statement, values)
        if "from appointments" in str(statement):
            monkeypatch.undo()
            found_rows = found.fetchall()
            _lapsed_elsewhere(game)
            return _Found(found_rows)
        return found

    looks("commit")
    monkeypatch.setattr(game.other, "execute", look)
    _agrees(game)


class _Found:
    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        return self._rows


def _lapsed_elsewhere(game: Game) -> None:
    with game.database.connect_admin() as server:
        server.execute("select fhir_sched_lapse(%s, %s, '{}')", [game.clinic.tenant, [_only(game)]])


@pytest.mark.parametrize("api", [False, True])
@pytest.mark.parametrize("status", ["pending", "booked", "proposed", "cancelled", "noshow"])
def test_it_has_lapsed_unseen_and_gets_a_status(game: Game, status: str, api: bool) -> None:
    game.let_time_pass(number=0)
    _lapsed_by_the_server(game)
    game.change_status(number=0, status=status, api=api)
    _agrees(game)
    game.clean_up()
    _agrees(game)


@pytest.mark.parametrize("api", [False, True])
def test_it_has_lapsed_unseen_and_is_moved(game: Game, api: bool) -> None:
    game.add_slot(number=0, start=5, length=1, capacity=1, api=False)
    game.let_time_pass(number=0)
    _lapsed_by_the_server(game)
    game.reschedule(number=0, numbers=[1], start=5, doctor=0, api=api)
    _agrees(game)


@pytest.mark.parametrize("api", [False, True])
def test_it_has_lapsed_unseen_under_an_exception_and_another_slot_comes(game: Game, api: bool) -> None:
    game.add_pause(number=0, start=2, length=1, api=False)
    game.let_time_pass(number=0)
    _lapsed_by_the_server(game)
    game.add_slot(number=0, start=3, length=1, capacity=1, api=api)
    _agrees(game)
