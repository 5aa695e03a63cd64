"""What the operator says of all sinks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`secrets` sign webhooks; `private` lets them go to private addresses and over http."""

    secrets: tuple[bytes, ...] = ()
    private: bool = False
