"""How many connections a server process holds, how long anything may take, and how each connection is set up.

It opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.conninfo import conninfo_to_dict, make_conninfo


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of lanes and of what may wait for them; times are in seconds.

    `steady` lanes for reads plan a statement once for all values, `shared` ones whenever PostgreSQL thinks it better.

    `slow` is for statements that take long, and on a replica only.

    `patience_s` is how long after the loss of every connection a request still waits for a new one.
    """

    steady: int = 2
    shared: int = 2
    exclusive: int = 8
    slow: int = 2
    in_flight: int = 256
    queue: int = 512
    queue_timeout_s: float = 5.0
    patience_s: float = 3.0
    lock_timeout_s: float = 2.0
    statement_timeout_s: float = 10.0
    idle_in_transaction_s: float = 10.0
    drain_s: float = 1.0

    @property
    def silence_s(self) -> float:
        """After how long without any answer a connection is given up: no statement may take this long."""
        return self.statement_timeout_s + 5.0

    def session(self, *, read_only: bool, steady: bool = False) -> dict[str, str]:
        """The settings that a connection keeps for as long as it lives."""
        return {
            "TimeZone": "UTC",
            "DateStyle": "ISO",
            "IntervalStyle": "iso_8601",
            "extra_float_digits": "1",
            "lock_timeout": _milliseconds(self.lock_timeout_s),
            "statement_timeout": _milliseconds(self.statement_timeout_s),
            "idle_in_transaction_session_timeout": _milliseconds(self.idle_in_transaction_s),
            "jit": "off",
            "plan_cache_mode": "force_generic_plan" if steady else "auto",
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "on" if read_only else "off",
        }


def with_defaults(conninfo: str) -> str:
    """The operator's connection string, with a name and with keepalives where it says nothing about them."""
    said = conninfo_to_dict(conninfo)
    defaults = {
        "application_name": "fhir-sched",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "20000",
    }
    return make_conninfo(conninfo, **{name: value for name, value in defaults.items() if name not in said})


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
