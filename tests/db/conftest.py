"""A cluster of its own for tests that kill backends and restart the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from fhir_sched.db import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
    drop table if exists note;
    create table note (
        id integer not null,
        tenant_id uuid not null,
        body text,
        amount integer check (amount >= 0),
        primary key (tenant_id, id)
    );
    alter table note enable row level security;
    alter table note force row level security;
    create policy note_tenant on note
        using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
    do $$ begin create role lane_test login; exception when duplicate_object then null; end $$;
    grant select, insert, update, delete on note to lane_test;
    grant create on schema public to lane_test;
"""


@pytest.fixture(scope="session")
def lane_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Embedded]:
    with embedded.start(tmp_path_factory.mktemp("lane"), server_settings={"fsync": "off"}) as cluster:
        yield cluster


@pytest.fixture
def admin(lane_cluster: embedded.Embedded) -> Iterator[psycopg.Connection]:
    """The owner's connection, beside a fresh table of notes."""
    with psycopg.connect(lane_cluster.admin_url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        yield connection


@pytest.fixture
def url(lane_cluster: embedded.Embedded, admin: psycopg.Connection) -> str:
    """Where the lanes connect: a role that owns nothing."""
    return lane_cluster.url("lane_test")
