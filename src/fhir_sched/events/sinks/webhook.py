"""`https://…`: each event is one POST of a CloudEvent, signed as Standard Webhooks has it.

Law: 2xx means that the receiver has it; 4xx (but for 408, 425, 429) that it does not want it; all else is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from fhir_sched.events import signature
from fhir_sched.events.cloudevent import CONTENT_TYPE
from fhir_sched.events.sink import Failure, Message, Refused, SinkError, Unavailable, each
from fhir_sched.events.sinks.options import Options
from fhir_sched.events.webhook import EndpointError, PostError, Webhooks

_AT_ONCE: Final = 16


class WebhookSink:
    """A sink."""

    batch = 64
    in_order = False

    def __init__(self, name: str, url: str, options: Options) -> None:
        self.name = name
        self._url, self._secrets = url, options.secrets
        self._client = Webhooks(private=options.private, connections=_AT_ONCE)
        self._client.check(url)

    async def open(self) -> None:
        """See that the host is not inside the private network. Raises SinkError."""
        try:
            await self._client.check_address(self._url)
        except EndpointError as error:
            raise SinkError(f"{self.name}: {error}") from None

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """Some at once, over connections that are kept."""
        return await each(messages, self._post, _AT_ONCE)

    async def _post(self, message: Message) -> None:
        headers = {
            "content-type": CONTENT_TYPE,
            **signature.headers(self._secrets, message.id, int(time.time()), message.body),
        }
        try:
            reply = await self._client.post(self._url, headers, message.body)
        except PostError as error:
            raise Unavailable(str(error)) from None
        if reply.refused:
            raise Refused(f"status {reply.status}")
        if not reply.accepted:
            raise Unavailable(f"status {reply.status}", reply.wait_s)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()
