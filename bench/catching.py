"""Catching the SQL that a request runs, as a pgbench script.

It is caught where the server hands it to its connections, so it cannot differ from what the server runs. Arguments that
change from request to request become pgbench expressions of the request's number; the others stay arguments.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import SESSION_SQL
from fhir_sched.http.app import App
from fhir_sched.settings import load

# a change with its audit event in one statement; the event's own arguments are cast
_INSERTS = ("insert", "with written as (\ninsert")


@dataclass(frozen=True)
class Script:
    """A pgbench script and the arguments that do not change (`-D`); `steady` as in Fragment."""

    text: str
    constants: dict[str, str]
    steady: bool = False


class _Sent(BaseException):
    def __init__(self, fragment: Fragment) -> None:
        super().__init__()
        self.fragment = fragment


class _Catcher:
    """Stands where the connections stand, and catches the first statement."""

    async def read(self, tenant: str, *fragments: Fragment, **manner: Any) -> Any:
        raise _Sent(fragments[0])

    write = read

    async def run(self, *fragments: Fragment) -> Any:
        raise _Sent(fragments[0])

    @asynccontextmanager
    async def transaction(self, tenant: str, *manner: Any) -> AsyncIterator[Any]:
        yield self

    async def retry(self, work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    def measured(self) -> Any:
        """Nothing is measured here; the application only wants to know whom to ask."""
        raise RuntimeError("there are no connections to measure")


def application_scope(raw: bytes) -> dict[str, Any]:
    """A raw HTTP request's head as ASGI has it."""
    first, *lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, _ = first.split(b" ")
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "method": method.decode(),
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)],
        "server": ("127.0.0.1", 80),
    }


def caught(raw: bytes) -> Fragment:
    """The first statement that the application runs for a raw HTTP request."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw.partition(b"\r\n\r\n")[2]}

    async def send(message: Any) -> None:
        raise RuntimeError(f"the application answered without a statement: {message}")

    lanes: Any = _Catcher()
    try:
        asyncio.run(App(load(auth="open"), lanes)(application_scope(raw), receive, send))
    except _Sent as sent:
        return sent.fragment
    raise RuntimeError("the application sent no statement")


def scripted(setup: str, fragment: Fragment, tenant: str, known: dict[str, str], prefix: str = "arg") -> Script:
    """The fragment behind the session's settings, in one pipeline; `known` maps an argument's text to an expression."""
    constants: dict[str, str] = {}

    def argument(match: re.Match[str]) -> str:
        value = fragment.args[int(match[1]) - 1]
        if value is None:
            return "null"
        text = moment_of(value.decode())
        if text in known:
            # where the statement does not cast its argument it is a text, but for the typed columns of an insert
            typed = fragment.text.startswith(_INSERTS) or fragment.text.startswith("::", match.end())
            return f"({known[text]})" if typed else f"({known[text]})::text"
        name = f"{prefix}{match[1]}"
        constants[name] = value.decode()
        return f":{name}"

    statement = re.sub(r"\$(\d+)", argument, fragment.text)
    text = f"{setup}\\startpipeline\n{session(known[tenant])};\n{statement};\n\\endpipeline\n"
    return Script(text, constants, fragment.steady)


def session(tenant: str) -> str:
    """The session's settings; `tenant` is an SQL expression."""
    return SESSION_SQL.replace("$1", f"({tenant})::text")


def moment_of(text: str) -> str:
    """Moments in one form, so that an argument is recognised however the server writes it."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return moment.isoformat() if moment.tzinfo else text


def get(path: str) -> bytes:
    """A raw GET."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n\r\n".encode()


def post(path: str, resource: dict[str, Any]) -> bytes:
    """A raw POST."""
    body = json.dumps(resource, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n"
        f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
