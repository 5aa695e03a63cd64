"""`nats://host:port/prefix`: each event goes to JetStream under `<prefix>.<tenant>.<event type>`.

Laws: an event counts as taken when the stream has acknowledged it; its id is the message's id, by which the stream
drops what it has already. A stream that takes the subjects is used as it is; where there is none, one is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fhir_sched.events.cloudevent import CONTENT_TYPE
from fhir_sched.events.sink import Failure, Message, Refused, Unavailable
from fhir_sched.events.sinks.options import Options

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

log = logging.getLogger("fhir_sched.events")

_TIMEOUT_S: Final = 5.0
_DUPLICATES_S: Final = 600.0
_NO_TOKEN: Final = re.compile(r"[\s*>\x00-\x1f\x7f]+")
_PREFIX: Final = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


class NatsSink:
    """A sink."""

    batch = 500
    in_order = False

    def __init__(self, name: str, url: str, options: Options) -> None:
        parts = urlsplit(url)
        # a port that is none raises ValueError here
        if not parts.hostname or parts.port == 0:
            raise ValueError("must name a host, such as nats://broker:4222/clinic")
        self.name = name
        self._prefix = parts.path.strip("/").replace("/", ".") or "fhir-sched"
        if not _PREFIX.fullmatch(self._prefix):
            raise ValueError("the subject prefix is letters, digits, - and _, with dots between")
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._client: Client | None = None
        self._acks: _Acks | None = None
        self._connecting = asyncio.Lock()

    async def open(self) -> None:
        """A broker that is down today is no error."""

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """All at once over one connection, then the acknowledgements."""
        from nats.errors import Error  # noqa: PLC0415 - only who has such a sink needs the client

        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async with self._connecting:
                    client, acks = await self._connected()
                results = await acks.gather(messages, client, self.subject)
        except (TimeoutError, OSError, Error) as error:
            await self._drop()
            return [Unavailable(_said(error))] * len(messages)
        if any(isinstance(result, Unavailable) for result in results):
            # what it takes is looked for again, or made, with the next connection
            await self._drop()
        return results

    def subject(self, message: Message) -> str:
        """Where a message goes; words that a subject cannot have are replaced."""
        words = [_NO_TOKEN.sub("_", word) or "_" for word in message.type.split(".")]
        return ".".join([self._prefix, message.tenant, *words])

    async def _connected(self) -> tuple[Client, _Acks]:
        import nats  # noqa: PLC0415

        if self._client is not None and self._acks is not None and self._client.is_connected:
            return self._client, self._acks
        await self._drop()
        client = self._client = await nats.connect(
            self._server,
            name="fhir-sched relay",
            allow_reconnect=False,
            connect_timeout=int(_TIMEOUT_S),
            error_cb=_quiet,
            pending_size=64 * 1024 * 1024,
        )
        await self._find_stream(client.jetstream(timeout=_TIMEOUT_S))
        self._acks = _Acks(client.new_inbox())
        await client.subscribe(f"{self._acks.inbox}.*", cb=self._acks.heard, pending_msgs_limit=100_000)
        return client, self._acks

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
        client, self._client, self._acks = self._client, None, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await client.close()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._drop()


class _Acks:
    """The acknowledgements of one connection: many messages on their way, each with a place to answer to."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self._next = 0
        self._open: dict[str, asyncio.Future[Failure | None]] = {}

    async def gather(
        self, messages: Sequence[Message], client: Client, subject: Callable[[Message], str]
    ) -> list[Failure | None]:
        """Publish the messages in their order; what the stream said to each."""
        from nats.errors import MaxPayloadError  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        places: list[str] = []
        futures: list[asyncio.Future[Failure | None]] = []
        try:
            for message in messages:
                self._next += 1
                place = str(self._next)
                places.append(place)
                future = self._open[place] = loop.create_future()
                futures.append(future)
                headers = {"Nats-Msg-Id": message.id, "content-type": CONTENT_TYPE}
                try:
                    await client.publish(subject(message), message.body, f"{self.inbox}.{place}", headers)
                except MaxPayloadError:
                    future.set_result(Refused("larger than the broker takes"))
            return [await future for future in futures]
        finally:
            for place in places:
                self._open.pop(place, None)

    async def heard(self, answer: Msg) -> None:
        """One acknowledgement, or what stands in its place."""
        future = self._open.get(answer.subject.rpartition(".")[2])
        if future is None or future.done():
            return
        if answer.headers and answer.headers.get("Status") == "503":
            future.set_result(Unavailable("no stream takes the subject"))
        elif b'"error"' in answer.data:
            future.set_result(_refusal(answer.data))
        else:
            future.set_result(None)


def _refusal(data: bytes) -> Failure | None:
    """What an answer of JetStream says beside an acknowledgement: 4xx but 408 and 429 are about the message."""
    error = json.loads(data).get("error")
    if not error:
        return None
    code = int(error.get("code", 500))
    problem = f"the stream: error {error.get('err_code', code)}"
    return Refused(problem) if 400 <= code < 500 and code not in (408, 429) else Unavailable(problem)


async def _quiet(error: Exception) -> None:
    log.debug("broker", extra={"fields": {"problem": type(error).__name__}})


def _said(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else f"the broker: {type(error).__name__}"
