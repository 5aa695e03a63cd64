"""Documents of the authorization server: JSON over http(s) or from a `file:` URL, with caps on size and time.

No redirect is followed, and only addresses are asked that the operator set or that the issuer's own discovery document
names. Never blocks the event loop. Knows nothing of what the documents mean.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from fhir_sched import document
from fhir_sched.outcome import FhirError

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 256 * 1024
TIMEOUT_S = 5.0


class FetchError(Exception):
    """Why a document could not be had; the text names no secret."""


class Fetcher:
    """One HTTP client for a server process, made when it is first needed."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object at a URL. Raises FetchError."""
        if url.startswith("file:"):
            return _object(await asyncio.to_thread(_read, file_path(url)))
        return await self._ask("GET", url)

    async def post(self, url: str, form: dict[str, str], user: str, password: str) -> dict[str, Any]:
        """The JSON object that answers a form, sent with HTTP Basic authentication. Raises FetchError."""
        return await self._ask("POST", url, form, (user, password) if user else None)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(
        self, method: str, url: str, form: dict[str, str] | None = None, login: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - a server without tokens never needs it

        if self._client is None:
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
            self._client = httpx.AsyncClient(
                headers=headers, follow_redirects=False, timeout=TIMEOUT_S, verify=ssl.create_default_context()
            )
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.stream(method, url, data=form, auth=login or httpx.USE_CLIENT_DEFAULT) as answer,
            ):
                return _object(await _body(answer))
        except TimeoutError:
            raise FetchError(f"no answer within {TIMEOUT_S:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(type(error).__name__) from None


async def _body(answer: httpx.Response) -> bytes:
    if answer.status_code != 200:
        raise FetchError(f"status {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchError("the answer is compressed")
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > MAX_BYTES:
            raise FetchError(f"more than {MAX_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def file_path(url: str) -> Path:
    """The path of a `file:` URL, with or without two slashes.

    >>> file_path("file:///etc/keys.json").as_posix(), file_path("file:/etc/a%20b").as_posix()
    ('/etc/keys.json', '/etc/a b')
    """
    return Path(unquote(urlsplit(url).path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FetchError(error.strerror or "the file can't be read") from None
    if len(body) > MAX_BYTES:
        raise FetchError(f"more than {MAX_BYTES} bytes")
    return body


def _object(body: bytes) -> dict[str, Any]:
    try:
        return document.parse(body)
    except FhirError:
        raise FetchError("no JSON object") from None
