"""Who may come in when more is asked than the process can do: a bound on requests in progress, shared among tenants.

Laws: it costs next to nothing and asks nobody, so it stands before authentication and the database; a tenant that asks
for more than its share waits behind itself; whoever can't be served soon is told so at once (RFC 9110 15.6.4). Knows no
route and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from fhir_sched.outcome import FhirError, Kind

RETRY_AFTER_S = 1
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one server process: requests in progress, those that wait for that, and for how long (seconds) they do.

    A tenant alone may have `alone` in progress; several that asked within the last two seconds `shared` divided among
    them, but `least` each. A tenant's queue may be `growth` times as long as what is left of `waiting`: long while
    nobody else waits, however many asked just before, and never so long that another one finds no room.
    `body_bytes` are those of large bodies that are being read or worked on.
    """

    running: int = 48
    alone: int = 40
    shared: int = 24
    least: int = 4
    waiting: int = 256
    growth: int = 3
    patience_s: float = 2.0
    body_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Turn:
    """A request that waits, until when by the loop's clock."""

    begun: asyncio.Future[None]
    until: float


@dataclass(slots=True)
class _Tenant:
    """What a tenant has in progress and what waits."""

    running: int = 0
    turns: deque[_Turn] = field(default_factory=deque)


class _Place:
    """A place in progress, for the duration of a context."""

    __slots__ = ("_gate", "_key")

    def __init__(self, gate: Gate, key: str) -> None:
        self._gate, self._key = gate, key

    async def __aenter__(self) -> None:
        await self._gate.enter(self._key)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self._key)


class Gate:
    """`enter` before the work and `leave` after it, or `place` around it; `full`: whether `enter` would refuse now.

    `draining`: the server is about to end; `probed`: somebody asks whether it is ready.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.running = 0
        self.waiting = 0
        self.body_bytes = 0
        self.refused = 0
        self.draining = False
        self.probed = False
        # when the next refused connection is read again, by the loop's clock
        self.read_later = 0.0
        self._tenants: dict[str, _Tenant] = {}
        # the tenants that wait, in the order of their next turn
        self._order: dict[str, None] = {}
        self._recent: set[str] = set()
        self._before: set[str] = set()
        self._turned = 0.0
        self._looking = False
        self._active = 1

    def full(self, key: str) -> bool:
        """Whether a request of this tenant would be refused now."""
        if not self.waiting:
            return False
        tenant = self._tenants.get(key)
        waiting = len(tenant.turns) if tenant is not None else 0
        return waiting >= self.bounds.growth * (self.bounds.waiting - self.waiting)

    def place(self, key: str) -> _Place:
        """A context that enters and leaves."""
        return _Place(self, key)

    def begins(self, key: str) -> bool:
        """Whether a request of this tenant may begin at once; it has then."""
        self._notice(key)
        if self.running >= self.bounds.running:
            return False
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = self._tenants[key] = _Tenant()
        elif tenant.turns or tenant.running >= self._may_run():
            return False
        self.running += 1
        tenant.running += 1
        return True

    async def enter(self, key: str) -> None:
        """Return when the request may begin. Raises 503 when too many wait, or when its turn does not come."""
        if self.begins(key):
            return
        if self.full(key):
            self.refused += 1
            raise overloaded()
        await self._turn(key, self._tenants.setdefault(key, _Tenant()))

    def leave(self, key: str) -> None:
        """The request has ended."""
        tenant = self._tenants[key]
        self.running -= 1
        tenant.running -= 1
        if self._order:
            self._admit()
        self._forget(key, tenant)

    def _forget(self, key: str, tenant: _Tenant) -> None:
        if not tenant.running and not tenant.turns:
            self._tenants.pop(key, None)

    def take(self, size: int) -> None:
        """Count bytes of a large body. Raises 503 when there are too many; give them back by a negative size."""
        if size > 0 and self.body_bytes + size > self.bounds.body_bytes:
            self.refused += 1
            raise overloaded()
        self.body_bytes += size

    def _may_run(self) -> int:
        bounds = self.bounds
        return bounds.alone if self._active == 1 else max(bounds.least, bounds.shared // self._active)

    def _notice(self, key: str) -> None:
        """Remember who asked within the last one or two seconds."""
        now = asyncio.get_running_loop().time()
        if now > self._turned + 1:
            self._before = self._recent if now < self._turned + 2 else set()
            self._recent = set()
            self._turned = now
        elif key in self._recent:
            return
        if len(self._recent) < self.bounds.shared:
            self._recent.add(key)
        self._active = len(self._recent | self._before)

    async def _turn(self, key: str, tenant: _Tenant) -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[None] = loop.create_future()
        turn = _Turn(begun, loop.time() + self.bounds.patience_s)
        self._order.setdefault(key)
        tenant.turns.append(turn)
        self.waiting += 1
        if not self._looking:
            self._looking = True
            loop.call_later(_LOOK_S, self._look)
        try:
            await begun
        except BaseException:
            if turn in tenant.turns:
                tenant.turns.remove(turn)
                self.waiting -= 1
                self._forget(key, tenant)
            elif begun.done() and not begun.cancelled() and begun.exception() is None:
                self.leave(key)
            raise

    def _look(self) -> None:
        """Refuse what has waited too long; come again while anything waits. A timer for each would cost more."""
        loop = asyncio.get_running_loop()
        for key in self._order:
            for turn in self._tenants[key].turns if key in self._tenants else ():
                if turn.until > loop.time():
                    break
                if not turn.begun.done():
                    self.refused += 1
                    turn.begun.set_exception(overloaded())
        self._looking = self.waiting > 0
        if self._looking:
            loop.call_later(_LOOK_S, self._look)

    def _admit(self) -> None:
        """Give what is free to those that wait, one tenant after the other."""
        passed = 0
        while self.running < self.bounds.running and passed < len(self._order):
            key = next(iter(self._order))
            del self._order[key]
            tenant = self._tenants.get(key)
            if tenant is None or not tenant.turns:
                continue
            if tenant.running >= self._may_run():
                self._order[key] = None
                passed += 1
                continue
            passed = 0
            turn = tenant.turns.popleft()
            self.waiting -= 1
            if tenant.turns:
                self._order[key] = None
            if not turn.begun.done():
                self.running += 1
                tenant.running += 1
                turn.begun.set_result(None)


def overloaded() -> FhirError:
    """503 for a request that was not begun."""
    return FhirError(
        Kind.THROTTLED, "The server is busy; please try again.", headers=(("Retry-After", str(RETRY_AFTER_S)),)
    )
