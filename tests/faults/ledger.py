"""The history of a load: each operation when it starts, each answer when it comes, one line of JSON each in a file.

Law: what is written before an operation starts says everything that it may do, so that an operation whose end nobody
saw can be looked for in the database. Knows nothing of HTTP or SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

Version = tuple[str, int]
"""A logical id and the number of one of its versions."""


class End(StrEnum):
    """What a client may believe of its operation."""

    OK = "ok"
    REFUSED = "refused"
    UNSENT = "unsent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attempt:
    """One request: the status of its answer, 0 for no answer, -1 for not sent; times are of the monotonic clock.

    `made` are the versions that a success names, in the order of the operation's marks.
    """

    began: float
    ended: float
    status: int
    made: tuple[Version, ...] = ()
    retry_after: str = ""


@dataclass
class Operation:
    """`marks` are words of which each stands in exactly one version of an appointment if the operation was done.

    `deletes` are the ids that it removes, `key` its Idempotency-Key.
    """

    number: str
    kind: str
    marks: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    key: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def end(self) -> End:
        """What the client knows: one success is enough; a refusal counts when no attempt before it is open.

        Under a key the attempts stand in line, so that the last refusal speaks for those before it.
        """
        statuses = [attempt.status for attempt in self.attempts]
        if any(200 <= status < 300 for status in statuses):
            return End.OK
        if not statuses:
            return End.UNKNOWN
        if all(status == -1 for status in statuses):
            return End.UNSENT
        sent = [status for status in statuses if status != -1]
        refused = [400 <= status < 500 for status in sent]
        return End.REFUSED if all(refused) or (self.key and refused[-1]) else End.UNKNOWN

    @property
    def successes(self) -> list[Attempt]:
        """The attempts that were answered with a success."""
        return [attempt for attempt in self.attempts if 200 <= attempt.status < 300]


class Ledger:
    """The file being written."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def start(self, operation: Operation) -> None:
        """Note an operation before its first byte goes out."""
        self._line({"start": asdict(operation)})

    def attempted(self, operation: Operation, attempt: Attempt) -> None:
        """Note what came of one request."""
        operation.attempts.append(attempt)
        self._line({"of": operation.number, "attempt": asdict(attempt)})

    def flush(self) -> None:
        """What was noted can be read from the file."""
        self._file.flush()

    def close(self) -> None:
        """Nothing more will be noted."""
        self._file.close()

    def _line(self, content: dict[str, Any]) -> None:
        self._file.write(json.dumps(content, separators=(",", ":")) + "\n")


def read(path: Path) -> list[Operation]:
    """The operations of a file, in the order in which they started."""
    found: dict[str, Operation] = {}
    for content in _lines(path):
        if "start" in content:
            given = content["start"]
            found[given["number"]] = Operation(
                given["number"], given["kind"], tuple(given["marks"]), tuple(given["deletes"]), given["key"]
            )
        else:
            attempt = content["attempt"]
            made = tuple((fhir_id, number) for fhir_id, number in attempt.pop("made"))
            found[content["of"]].attempts.append(Attempt(**attempt, made=made))
    return list(found.values())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
