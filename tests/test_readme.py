"""README.md as its reader meets it: every command is run, the settings are the code's, the links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from fhir_sched.db import embedded
from fhir_sched.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A block of commands, and the line behind it that says how they are answered where one is not 200.
TOLD = re.findall(r"^```sh\n(.*?)^```$(?:\n\nAnswers: ([^`]*?)\n\n)?", README, re.MULTILINE | re.DOTALL)
BLOCKS = [block for block, _ in TOLD]
WRITTEN_ROOT = "http://127.0.0.1:8080"
# A shell that has no settings, nor was started by the `make test` that runs this.
BARE = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "MAKE", "MFLAGS"))}
# Tells the status of every request on stderr, where it is in nobody's way.
CURL = """curl() { command curl -w '%{stderr}\\nstatus %{http_code}\\n' "$@"; }\n"""

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("make") is None, reason="the commands are for make and curl"
)


def _own_database_blocks() -> list[str]:
    return [block for block in BLOCKS if ".venv/bin/fhir-sched " in block]


def _session_blocks() -> list[str]:
    return [block for block in BLOCKS if block not in ("make run\n", *_own_database_blocks())]


@dataclass(frozen=True)
class Running:
    """`make run` as it was started: the root URL that it serves and the directory of its database."""

    root: str
    greeting: str
    data_dir: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The first command of the README, on a free port and with data of its own."""
    assert BLOCKS[0] == "make run\n"
    data_dir = tmp_path_factory.mktemp("readme")
    environment = {**BARE, f"{PREFIX}PORT": "0", f"{PREFIX}DATA_DIR": str(data_dir)}
    # What is installed is what is tested: nothing is installed again, though pyproject.toml may be newer.
    command = ["make", "--old-file=pyproject.toml", "--old-file=constraints.txt", "run"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        greeting = ""
        for line in process.stdout:
            greeting += line
            if greeting.count("\ncurl ") == 3:
                break
        found = re.search(r"^  (http://[^/\s]+)/fhir/", greeting, re.MULTILINE)
        assert found, greeting
        yield Running(found[1], greeting, data_dir)
        # As Ctrl-C does, to make and all that it runs; make itself then ends by the signal.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(15) in (0, 2, -signal.SIGINT)
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def _run_in_shell(blocks: list[str]) -> list[tuple[list[int], str]]:
    """The blocks, run one after the other in one shell: the statuses of each one's requests, and what it printed."""
    marked = "".join(f"printf '\\nblock\\n'; printf '\\nblock\\n' >&2\n{block}\n" for block in blocks)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", CURL + marked],
        cwd=ROOT,
        env=BARE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    said, printed = (re.split(r"^block$", text, flags=re.MULTILINE)[1:] for text in (done.stderr, done.stdout))
    return [
        ([int(code) for code in re.findall(r"^status (\d+)$", each, re.MULTILINE)], answer)
        for each, answer in zip(said, printed, strict=True)
    ]


def _promised(block: str) -> list[int]:
    """The status of each request of a block: those that the line behind it tells, 200 where there is none."""
    told = re.findall(r"\b[2345]\d\d\b", dict(TOLD)[block])
    return [int(status) for status in told] or [200] * len(re.findall(r"(?<![\w-])curl -s ", block))


def test_every_command_answers_what_the_readme_says(running: Running) -> None:
    assert running.root != WRITTEN_ROOT
    blocks = _session_blocks()
    assert len(blocks) > 5
    assert WRITTEN_ROOT in blocks[0]
    answered = _run_in_shell([block.replace(WRITTEN_ROOT, running.root) for block in blocks])
    for block, (statuses, printed) in zip(blocks, answered, strict=True):
        assert statuses == _promised(block), block + printed


def test_the_greeting_is_the_one_that_is_shown(running: Running) -> None:
    shown = re.findall(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[0]
    assert WRITTEN_ROOT in shown
    for line in filter(None, shown.replace(WRITTEN_ROOT, running.root).splitlines()):
        parts = [re.escape(part) for part in line.split("…")]
        assert re.search("^" + ".*".join(parts), running.greeting, re.MULTILINE), line


def test_the_commands_for_an_own_database_take_it_from_empty_to_ready(running: Running) -> None:
    (block,) = _own_database_blocks()
    owner = embedded.running(running.data_dir, purpose="the test of the README")
    with owner as server:
        with psycopg.connect(server.url(embedded.OWNER, "postgres"), autocommit=True) as connection:
            connection.execute("create database clinic")
        urls = {
            "postgresql://owner:secret@db.example.org/clinic": server.url(embedded.OWNER, "clinic"),
            "postgresql://fhir_sched_app:secret@db.example.org/clinic": server.url(embedded.APP_ROLE, "clinic"),
        }
        for written, ours in urls.items():
            assert written in block
            block = block.replace(written, f"'{ours}'")
        prepare, serve, rest = block.partition(".venv/bin/fhir-sched serve --auth open\n")
        assert serve
        assert not rest
        prepared = subprocess.run(
            ["/bin/sh", "-eu", "-c", prepare],
            cwd=ROOT,
            env=BARE,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert prepared.returncode == 0, prepared.stderr
        assert prepared.stdout.endswith("all is well\n")
        exports = "".join(line + "\n" for line in prepare.splitlines() if line.startswith("export "))
        command = f"{exports}{PREFIX}PORT=0 exec {sys.executable} {serve.strip()}"
        with subprocess.Popen(
            ["/bin/sh", "-eu", "-c", command], cwd=ROOT, env=BARE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert "is ready" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 0


def test_every_make_target_is_there_and_every_target_is_told() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `make (\w+)` \|", README, re.MULTILINE))
    assert told == set(re.findall(r"^(\w+):.*##", makefile, re.MULTILINE)) - {"help"}
    subprocess.run(["make", "--dry-run", *sorted(told)], cwd=ROOT, env=BARE, capture_output=True, check=True)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) \| ", README, re.MULTILINE)
    assert [name for name, _ in rows] == [name.upper() for name in Settings.model_fields]
    for name, default in rows:
        field = Settings.model_fields[name.lower()]
        if field.default is not None and field.default != () and field.default_factory is None:
            assert default == f"`{field.default}`"


@pytest.mark.parametrize(
    "document", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_links_lead_to_files_that_are_there(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("http:", "https:")):
            assert (path.parent / link).exists(), f"{document}: {link}"


def test_every_page_is_named_where_to_read_on() -> None:
    assert [path.name for path in ROOT.glob("docs/*.md") if f"(docs/{path.name})" not in README] == []


def test_the_generated_tables_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "documents.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
