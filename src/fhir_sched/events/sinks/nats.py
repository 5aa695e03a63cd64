"""`nats://host:port/prefix`: each event goes to JetStream under `<prefix>.<tenant>.<event type>`.

Laws: an event counts as taken when the stream has acknowledged it; its id is the message's id, by which the stream
drops what it has already. A stream that takes the subjects is used as it is; where there is none, one is made.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fhir_sched.events.cloudevent import CONTENT_TYPE
from fhir_sched.events.sink import Failure, Message, Refused, Unavailable
from fhir_sched.events.sinks.options import Options

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

log = logging.getLogger("fhir_sched.events")

_TIMEOUT_S: Final = 5.0
_DUPLICATES_S: Final = 600.0
_NO_TOKEN: Final = re.compile(r"[\s*>\x00-\x1f\x7f]+")
_PREFIX: Final = re.compile(r"[\w-]+(\.[\w-]+)*")


class NatsSink:
    """A sink."""

    batch = 500
    in_order = False

    def __init__(self, name: str, url: str, options: Options) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("must name a host, such as nats://broker:4222/clinic")
        self.name = name
        self._prefix = parts.path.strip("/").replace("/", ".") or "fhir-sched"
        if not _PREFIX.fullmatch(self._prefix):
            raise ValueError("the subject prefix is letters, digits, - and _, with dots between")
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None

    async def open(self) -> None:
        """A broker that is down today is no error."""

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """All at once over one connection, then the acknowledgements."""
        from nats import errors  # noqa: PLC0415 - only who has such a sink needs the client
        from nats.js import errors as stream_errors  # noqa: PLC0415

        try:
            async with asyncio.timeout(_TIMEOUT_S):
                stream = await self._connected()
                acknowledged = [await self._publish(stream, message) for message in messages]
        except (TimeoutError, OSError, errors.Error, stream_errors.Error) as error:
            await self._drop()
            return [Unavailable(_said(error))] * len(messages)
        results = await _all(acknowledged, _TIMEOUT_S)
        if any(isinstance(result, TimeoutError | errors.Error) for result in results):
            await self._drop()
        return [self._judged(result) for result in results]

    async def _publish(self, stream: JetStreamContext, message: Message) -> asyncio.Future[Any]:
        from nats import errors  # noqa: PLC0415

        headers = {"Nats-Msg-Id": message.id, "content-type": CONTENT_TYPE}
        try:
            return await stream.publish_async(self.subject(message), message.body, headers=headers)
        except errors.MaxPayloadError as error:
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def subject(self, message: Message) -> str:
        """Where a message goes; words that a subject cannot have are replaced."""
        words = [_NO_TOKEN.sub("_", word) or "_" for word in message.type.split(".")]
        return ".".join([self._prefix, message.tenant, *words])

    def _judged(self, result: object) -> Failure | None:
        from nats import errors  # noqa: PLC0415
        from nats.js import errors as stream_errors  # noqa: PLC0415

        match result:
            case errors.MaxPayloadError():
                return Refused("larger than the broker takes")
            case stream_errors.NoStreamResponseError():
                # somebody removed the stream: it is looked for, or made, with the next connection
                self._stream = None
                return Unavailable("no stream takes the subject")
            case BaseException():
                return Unavailable(_said(result))
        return None

    async def _connected(self) -> JetStreamContext:
        import nats  # noqa: PLC0415

        if self._client is None or not self._client.is_connected:
            await self._drop()
            self._client = await nats.connect(
                self._server,
                name="fhir-sched relay",
                allow_reconnect=False,
                connect_timeout=int(_TIMEOUT_S),
                error_cb=_quiet,
                max_reconnect_attempts=0,
                pending_size=64 * 1024 * 1024,
            )
        if self._stream is None:
            stream = self._client.jetstream(timeout=_TIMEOUT_S)
            await self._find_stream(stream)
            self._stream = stream
        return self._stream

    async def _find_stream(self, stream: JetStreamContext) -> None:
        from nats.js import api  # noqa: PLC0415
        from nats.js.errors import BadRequestError, NotFoundError  # noqa: PLC0415

        subjects = f"{self._prefix}.>"
        with suppress(NotFoundError):
            await stream.find_stream_name_by_subject(subjects)
            return
        title = re.sub(r"\W", "_", self._prefix).upper()
        wanted = api.StreamConfig(
            name=title, subjects=[subjects], storage=api.StorageType.FILE, duplicate_window=_DUPLICATES_S
        )
        # another relay may make it at the same time
        with suppress(BadRequestError):
            await stream.add_stream(wanted)
            log.info("a stream was made", extra={"fields": {"sink": self.name, "stream": title}})

    async def _drop(self) -> None:
        client, self._client, self._stream = self._client, None, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await client.close()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._drop()


async def _all(futures: Sequence[asyncio.Future[Any]], within_s: float) -> list[object]:
    """What became of each; TimeoutError for those that were not answered."""
    if futures:
        await asyncio.wait(futures, timeout=within_s)
    results: list[object] = []
    for future in futures:
        if not future.done():
            future.cancel()
            results.append(TimeoutError())
        else:
            results.append(future.exception() or future.result())
    return results


async def _quiet(error: Exception) -> None:
    log.debug("broker", extra={"fields": {"problem": type(error).__name__}})


def _said(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else f"the broker: {type(error).__name__}"
