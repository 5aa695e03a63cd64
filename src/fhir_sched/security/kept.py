"""What is fetched now and then and kept: fresh for a while, fetched by one at a time, the old one while that fails.

Knows neither what is fetched nor how.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fhir_sched.security.fetching import FetchError

T = TypeVar("T")

log = logging.getLogger("fhir_sched.security")

FIRST_PAUSE_S = 3.0
"""While there is no value at all, an attempt is made at most this often."""


@dataclass(slots=True)
class Attempts:
    """How often fetching went well and failed, and when it did so last (Unix seconds, None for never)."""

    succeeded: int = 0
    failed: int = 0
    succeeded_at: float | None = None
    failed_at: float | None = None


class Kept(Generic[T]):
    """The value of `load`. It is asked for again after `fresh_s`, and for a reason of the caller's every `pause_s`."""

    def __init__(
        self,
        name: str,
        load: Callable[[], Awaitable[T]],
        *,
        fresh_s: float,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.value: T | None = None
        self.failure = ""
        self.attempts = Attempts()
        self._load, self._clock = load, clock
        self._fresh_s, self._pause_s = fresh_s, pause_s
        self._attempted = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def current(self) -> T:
        """The value, at once where there is one. Raises FetchError while there has never been one."""
        if self.value is None and (self._task is not None or self._due(min(FIRST_PAUSE_S, self._pause_s))):
            await self._renew()
        if self.value is None:
            raise FetchError(self.failure)
        self.renew_when_old()
        return self.value

    async def renewed(self) -> T:
        """The value after an attempt to renew it, which is left out when the last one was too short a time ago."""
        if self._task is not None or self._due(self._pause_s):
            await self._renew()
        return await self.current()

    def renew_when_old(self) -> None:
        """Start to renew a value that is not fresh, without waiting for it."""
        if self._task is None and self._due(self._fresh_s):
            self._start()

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _due(self, pause_s: float) -> bool:
        return self._clock() - self._attempted >= pause_s

    async def _renew(self) -> None:
        # One attempt serves everybody who waits; whoever goes away leaves it running for the others.
        await asyncio.shield(self._task or self._start())

    def _start(self) -> asyncio.Task[None]:
        self._attempted = self._clock()
        self._task = asyncio.create_task(self._attempt())
        return self._task

    async def _attempt(self) -> None:
        try:
            self.value = await self._load()
            self.failure = ""
            self.attempts.succeeded += 1
            self.attempts.succeeded_at = time.time()
        except FetchError as error:
            self.failure = str(error)
            self.attempts.failed += 1
            self.attempts.failed_at = time.time()
            log.warning("%s could not be fetched: %s", self.name, error)
        finally:
            self._task = None
