"""What every command shares: flags made of settings, the database to work on, failures in one line.

Knows no command.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from fhir_sched.settings import PREFIX, Settings, SettingsError, load


def fail(message: str, code: int = 1) -> NoReturn:
    click.echo(f"fhir-sched: {message}", err=True)
    sys.exit(code)


def _metavar(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) in (types.UnionType,):
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    return {int: "NUMBER"}.get(kind, "TEXT")


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A flag for each named setting (all of them when none is named): `data_dir` is `--data-dir`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names or tuple(Settings.model_fields)):
            field = Settings.model_fields[name]
            shown = "" if "[default" in (field.description or "") or field.default in (None, ()) else str(field.default)
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                metavar=_metavar(field),
                help=f"{field.description}{f' [default: {shown}]' if shown else ''} ({PREFIX}{name.upper()})",
            )(command)
        return command

    return decorate


def settings_of(flags: dict[str, Any]) -> Settings:
    try:
        return load(**flags)
    except SettingsError as error:
        fail(str(error), 2)


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """Turn the failures that have a sentence into that sentence and an exit code; Ctrl-C is an orderly end."""
    import psycopg

    from fhir_sched.db.embedded import EmbeddedError
    from fhir_sched.db.migrations import MigrationError

    try:
        yield
    except (EmbeddedError, MigrationError) as error:
        fail(str(error))
    except psycopg.Error as error:
        fail(f"the database refused: {error.diag.message_primary or ' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(0)


@contextmanager
def database_of(settings: Settings, purpose: str) -> Iterator[tuple[str, str]]:
    """(URL of the owner, URL of the application role): the operator's own, else the embedded one's."""
    from fhir_sched.db import embedded

    if settings.database_url is not None:
        yield settings.admin_url or "", settings.database_url
        return
    with embedded.running(settings.data_dir, purpose=f"fhir-sched {purpose}") as database:
        yield database.admin_url, database.app_url
