"""Runs the benchmarks: each scenario over HTTP and in pgbench, in interleaved rounds; a table and bench-results.json.

The server is the real one, `fhir-sched serve` with one worker; database, server, load generator and pgbench share the
machine. Medians over the rounds; a ratio is taken within its round, so that a slow minute slows both sides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench import bundles, data, generation, holding, load, pgbench, scenarios, shape
from bench.tokens import Tokens
from fhir_sched.db.embedded import APP_ROLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.scenarios import Scenario

CLIENTS = 8
PAGES = 2_000
REQUESTS_FOR_MEMORY = 100_000
# more bookings than one machine makes in a second: each run is given its own free slots
_MOST_BOOKINGS = 15_000
_GENERATION, _HOLDING = "generation", "hold_and_book"

Figures = dict[str, dict[str, list[float]]]


def main() -> int:
    """The command `python -m bench`."""
    arguments = _arguments()
    results: dict[str, Any]
    with data.cluster(arguments.data_dir) as running:
        data.prepare(running, _say)
        url = running.url(APP_ROLE, data.DATABASE)
        with _server(url, smart=arguments.smart) as (port, process, tokens):
            bench = _Bench(url, port, process, arguments.seconds, tokens)
            listed = _scenarios(port, url, tokens)
            chosen = [each for each in listed if not arguments.only or each.name in arguments.only]
            for scenario in chosen:
                bench.warm_up(scenario)
            for number in range(arguments.rounds):
                _say(f"round {number + 1} of {arguments.rounds}")
                for scenario in chosen:
                    bench.round(scenario)
            results = _results(bench)
            if not arguments.only or _GENERATION in arguments.only:
                results[_GENERATION] = generation.measure(url)
            if not arguments.smart and (not arguments.only or _HOLDING in arguments.only):
                results[_HOLDING] = holding.measure(url, port, bench.turn, tokens)
        data.restore(running)
    _print(results)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument(
        "--smart", action="store_true", help="with tokens (AUTH=smart); the audit log is on in any case"
    )
    parser.add_argument("--only", nargs="*", help="names of scenarios")
    parser.add_argument("--data-dir", type=Path, default=here / "bench-data")
    parser.add_argument("--output", type=Path, default=here / "bench-results.json")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _server(url: str, *, smart: bool) -> Iterator[tuple[int, psutil.Process, Tokens | None]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(sys.executable).parent / "fhir-sched"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SCHED_")}
    keys = tempfile.TemporaryDirectory()
    # the requests name a host without its port, the tokens the whole base
    public = {"FHIR_SCHED_PUBLIC_URL": f"http://127.0.0.1:{port}", "FHIR_SCHED_DEV_KEY": str(smart)}
    given = {"FHIR_SCHED_DATABASE_URL": url, "FHIR_SCHED_DATA_DIR": keys.name, **public}
    process = subprocess.Popen(
        [command, "serve", "--auth", "smart" if smart else "open", "--port", str(port)],
        env={**environment, **given},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a line for each request, which is written all the same
    )
    try:
        _wait(port, process)
        yield port, psutil.Process(process.pid), Tokens(Path(keys.name), port) if smart else None
    finally:
        process.terminate()
        process.wait(15)
        keys.cleanup()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the server did not start")
        try:
            if _get(port, "/healthz")[0] == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Accept": "application/fhir+json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _scenarios(port: int, url: str, tokens: Tokens | None) -> list[Scenario]:
    """All of them; the far page is found by following `next` links, as a client would."""
    public = f"http://127.0.0.1:{port}"
    path = scenarios.LONG_SEARCH
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    seen: set[str] = set()
    for number in range(1, PAGES + 1):
        connection.request("GET", path, headers=tokens.of(path) if tokens else {})
        bundle = json.loads(connection.getresponse().read())
        ids = [entry["resource"]["id"] for entry in bundle["entry"]]
        if len(ids) != 50 or not seen.isdisjoint(ids):
            raise RuntimeError(f"page {number} has {len(ids)} entries, or repeats some of another page")
        seen.update(ids)
        if number < PAGES:
            path = scenarios.percent_encoded(scenarios.next_link(bundle), public)
    connection.close()
    return [
        scenarios.READ,
        scenarios.SEARCH,
        scenarios.SEARCH_ACTOR,
        scenarios.FIND,
        scenarios.page("page_1", scenarios.LONG_SEARCH),
        scenarios.page("page_2000", path),
        bundles.HISTORY,
        bundles.revinclude(url),
        scenarios.BOOK,
        bundles.TRANSACTION,
    ]


class _Bench:
    """Runs scenarios and gathers figures: name of the scenario -> name of the figure -> one value a round."""

    def __init__(self, url: str, port: int, process: psutil.Process, seconds: float, tokens: Tokens | None) -> None:
        self.url, self.port, self.process, self.seconds, self.tokens = url, port, process, seconds, tokens
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self.generator_us: list[float] = []
        self.served = 0
        self.worker_us = 0.0
        self.turn = 0

    def warm_up(self, scenario: Scenario) -> None:
        """Fill caches, prepare statements, and see that the answers are what they should be."""
        self._over_http(scenario, 1)
        self._in_pgbench(scenario, min(CLIENTS, scenario.connections), 1)

    def round(self, scenario: Scenario) -> None:
        """One measurement on each side."""
        got = self._over_http(scenario, self.seconds)
        limit = self._in_pgbench(scenario, min(CLIENTS, scenario.connections), self.seconds)
        crowd = self._in_pgbench(scenario, scenario.connections, self.seconds)
        for name, value in (
            ("rps", got.rps),
            ("pgbench_tps", limit.tps),
            ("ratio", got.rps / limit.tps),
            ("p50_ms", got.p50_ms),
            ("p99_ms", got.p99_ms),
            ("pgbench_32_tps", crowd.tps),
            ("pgbench_32_p50_ms", crowd.p50_ms),
            ("pgbench_32_p99_ms", crowd.p99_ms),
            ("p99_ratio", got.p99_ms / crowd.p99_ms),
            ("worker_us", self.worker_us),
        ):
            self.figures[scenario.name][name].append(value)
        self.generator_us.append(got.generator_us)
        _say(
            f"  {scenario.name:<13}{got.rps:9,.0f}/s {limit.tps:9,.0f} tps {got.rps / limit.tps:6.0%}"
            f"   p99 {got.p99_ms:6.2f} ms, pgbench {crowd.p99_ms:6.2f} ms"
        )

    def fill(self) -> None:
        """Serve reads until the worker has answered enough to judge its memory."""
        while self.served < REQUESTS_FOR_MEMORY:
            self._over_http(scenarios.READ, 2)

    def _over_http(self, scenario: Scenario, seconds: float) -> load.Load:
        count = int(_MOST_BOOKINGS * seconds) // scenario.consumes if scenario.consumes else 20_000
        requests = scenario.requests(self._turns(seconds) if scenario.consumes else 0, count)
        if self.tokens is not None:
            requests = [self.tokens.signed(request) for request in requests]
        if not scenario.consumes:
            requests *= int(seconds) + 1
        before = sum(self.process.cpu_times()[:2])
        got = load.drive(self.port, requests, status=scenario.status, connections=scenario.connections, seconds=seconds)
        self.worker_us = (sum(self.process.cpu_times()[:2]) - before) / got.requests * 1e6
        self.served += got.requests
        return got

    def _in_pgbench(self, scenario: Scenario, clients: int, seconds: float) -> pgbench.Limit:
        first = self._turns(seconds) if scenario.consumes else 0
        return pgbench.run(self.url, scenario.script(first, clients), clients=clients, seconds=seconds)

    def _turns(self, seconds: float) -> int:
        """The first of the free slots that a run of so many seconds may take."""
        first, self.turn = self.turn, self.turn + int(_MOST_BOOKINGS * seconds)
        if self.turn > shape.FREE:
            raise RuntimeError("no free slots are left: take fewer rounds or seconds")
        return first


def _results(bench: _Bench) -> dict[str, Any]:
    results: dict[str, Any] = {
        name: {figure: round(statistics.median(values), 3) for figure, values in figures.items()}
        for name, figures in bench.figures.items()
    }
    if "page_1" in results and "page_2000" in results:
        near, far = bench.figures["page_1"]["p50_ms"], bench.figures["page_2000"]["p50_ms"]
        results["page_2000"]["times_page_1"] = round(
            statistics.median(b / a for a, b in zip(near, far, strict=True)), 3
        )
    bench.fill()
    results["worker"] = {
        "requests": bench.served,
        "rss_mb": round(bench.process.memory_info().rss / 1e6, 1),
        "generator_us_per_request": round(statistics.median(bench.generator_us), 1),
    }
    results["machine"] = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "connections": scenarios.READ.connections,
        "pgbench_clients": CLIENTS,
        "rounds": max((len(each["rps"]) for each in bench.figures.values()), default=0),
        "seconds": bench.seconds,
        "tokens": bench.tokens is not None,
    }
    return results


def _print(results: dict[str, Any]) -> None:
    columns = ("rps", "pgbench_tps", "ratio", "p50_ms", "p99_ms", "pgbench_32_p99_ms", "p99_ratio", "worker_us")
    print(f"\n{'':<13}" + "".join(f"{name:>19}" for name in columns))
    for name, figures in results.items():
        if "rps" in figures:
            print(f"{name:<13}" + "".join(f"{figures[column]:>19,.2f}" for column in columns))
    far = results.get("page_2000", {}).get("times_page_1")
    if far is not None:
        print(f"\npage 2,000 takes {far:.2f} times as long as page 1")
    pairs = results.get(_HOLDING)
    if pairs is not None:
        print(
            f"\na time is held and booked {pairs['pairs_per_s']:,.0f} times a second by one client,"
            f" {pairs['ratio']:.2f} of the same two changes in SQL ({pairs['sql_pairs_per_s']:,.0f})"
        )
    made = results.get(_GENERATION)
    if made is not None:
        print(
            f"\nslots are generated at {made['slots_per_s']:,.0f} a second, {made['ratio']:.2f} of a plain insert of"
            f" the same rows ({made['insert_slots_per_s']:,.0f})"
        )
    worker = results["worker"]
    print(
        f"the worker holds {worker['rss_mb']} MB after {worker['requests']:,} requests; the load generator took"
        f" {worker['generator_us_per_request']} us of CPU a request from the same {results['machine']['cpus']} cores"
    )
