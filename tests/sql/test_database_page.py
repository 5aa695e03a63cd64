"""docs/database.md names everything that the migrations leave, where it stands and what it does."""

from __future__ import annotations

import runpy
from pathlib import Path

from db import Cluster

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "database.py"))


def test_the_page_is_current_and_says_of_everything_what_it_does(cluster: Cluster) -> None:
    with cluster.fresh() as empty:
        wanted = TOOL["page"](empty.admin_url)
    assert (ROOT / "docs" / "database.md").read_text(encoding="utf-8") == wanted, "run python tools/database.py"
    assert [line for line in wanted.splitlines() if line.endswith("|  |")] == []


def test_what_is_said_by_hand_is_of_something_that_is_there(cluster: Cluster) -> None:
    with cluster.fresh() as empty:
        names = {thing.name for thing in TOOL["things"](empty.admin_url)}
    assert TOOL["_SAID"].keys() <= names
