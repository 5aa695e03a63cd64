"""POST to a URL that a client or an operator named, without harm: for sinks and for Subscriptions.

Laws: https, and public addresses, unless the operator allows others; the address that was checked is connected to; no
redirect is followed, no proxy asked; the whole takes no longer than its time-out, and of the answer no more is read
than a few kilobytes. Knows neither events nor FHIR.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

from fhir_sched import __version__
from fhir_sched.events import addresses

TIMEOUT_S: Final = 10.0
_MAX_ANSWER: Final = 64 * 1024
_CONNECT_S: Final = 5.0
_IDLE_S: Final = 30.0


class EndpointError(ValueError):
    """Why no message may ever go to a URL: one line for whoever named it."""


class PostError(Exception):
    """Why there was no answer, in words that hold nothing of the message; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The status of the answer; `wait_s` is what its Retry-After asks for, 0 where it says nothing."""

    status: int
    wait_s: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether it is 2xx."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether it is of those that another attempt will hardly change: 4xx but for 408, 425 and 429."""
        return 400 <= self.status < 500 and self.status not in (408, 425, 429)


class Webhooks:
    """The HTTP client of a process for such URLs; connections are kept for a while and shared."""

    def __init__(self, *, private: bool = False, timeout_s: float = TIMEOUT_S, connections: int = 64) -> None:
        self._private, self._timeout_s = private, timeout_s
        self._connections = connections
        self._pool: httpcore.AsyncConnectionPool | None = None

    def check(self, url: str) -> None:
        """Look at the URL alone. Raises EndpointError where nothing may ever be sent there."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise EndpointError(f"no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise EndpointError("must be a URL that begins with https:// and names a host")
        if parts.username is not None or parts.fragment:
            raise EndpointError("must have neither a user nor a fragment")
        if not url.isascii() or any(sign.isspace() or not sign.isprintable() for sign in url):
            raise EndpointError("must be written in ASCII without blanks")
        if self._private:
            return
        if parts.scheme != "https":
            raise EndpointError("must begin with https:// (ALLOW_PRIVATE_ENDPOINTS lets it be http://)")
        if host == "localhost" or host.endswith(".localhost") or (_is_address(host) and not addresses.is_public(host)):
            raise EndpointError("leads to a private address, which only ALLOW_PRIVATE_ENDPOINTS allows")

    async def check_address(self, url: str) -> None:
        """`check`, and look at the host's addresses as they are now. A name that is unknown today is no error."""
        self.check(url)
        parts = urlsplit(url)
        try:
            await addresses.allowed(parts.hostname or "", _port(url), private=self._private)
        except addresses.Forbidden:
            raise EndpointError("leads to a private address, which only ALLOW_PRIVATE_ENDPOINTS allows") from None
        except (OSError, UnicodeError):
            return

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float | None = None) -> Reply:
        """The answer to one POST. Raises PostError when there is none in time, EndpointError as `check`."""
        self.check(url)
        if self._pool is None:
            self._pool = self._opened()
        sent = {"user-agent": f"fhir-sched/{__version__}", "accept": "*/*", "accept-encoding": "identity", **headers}
        try:
            async with (
                asyncio.timeout(timeout_s or self._timeout_s),
                self._pool.stream("POST", url, headers=list(sent.items()), content=body) as answer,
            ):
                await _skip(answer.aiter_stream())
                headers_of = {name.lower(): value for name, value in answer.headers}
                return Reply(answer.status, _wait_s(headers_of.get(b"retry-after")))
        except TimeoutError:
            raise PostError("no answer in time") from None
        except addresses.Forbidden:
            raise PostError("the host leads to a private address") from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise PostError(f"no answer: {type(error).__name__}") from None
        except UnicodeError:
            raise PostError("the host's name cannot be resolved") from None

    async def close(self) -> None:
        """Let go of the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    def _opened(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=_IDLE_S,
            network_backend=_Checked(private=self._private),
        )


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were looked at, under the name that was asked for."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the host's addresses that may be and can be connected to."""
        problem: Exception = httpcore.ConnectError("no address")
        for address in await addresses.allowed(host, port, private=self._private):
            try:
                return await self._backend.connect_tcp(address, port, _CONNECT_S, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    async def sleep(self, seconds: float) -> None:
        """As httpcore wants it."""
        await self._backend.sleep(seconds)


async def _skip(answer: Any) -> None:
    """Read an answer that nobody needs, so that the connection can be used again; not more than a little."""
    size = 0
    async for part in answer:
        size += len(part)
        if size > _MAX_ANSWER:
            return


def _wait_s(text: bytes | None) -> float:
    """Retry-After in seconds, as a number or a date (RFC 9110 10.2.3)."""
    said = (text or b"").decode("latin-1").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    with suppress(ValueError, TypeError):
        return max((parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
