"""Programs in Java and JavaScript that look at the server from outside, made once into a folder of the environment.

What they are made of comes from Maven Central and the npm registry by their ordinary clients. A machine without Java or
Node skips the tests that need them; one that has them and cannot make the programs fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FOLDER = Path(sys.prefix, "foreign")
MAKING = 600
"""Seconds that a download may take."""


@cache
def java() -> list[str]:
    """The command that runs a class of tests/validator; its name and arguments follow."""
    _need("java", "mvn")
    source = TESTS / "validator"
    files = [source / "pom.xml", *sorted(source.rglob("*.java"))]
    folder = _made("java", files, lambda target: _maven(source, target))
    classpath = (folder / "classpath").read_text()
    if not all(Path(jar).exists() for jar in classpath.split(os.pathsep)):  # Maven's own folder was emptied
        shutil.rmtree(folder)
        _made("java", files, lambda target: _maven(source, target))
    # Most of a short run is start-up: the first compiler alone is faster.
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx2g"]
    return ["java", *options, "-cp", f"{folder / 'classes'}{os.pathsep}{classpath}"]


@cache
def javascript(program: str) -> list[str]:
    """The command that runs a program of tests/clients/js; its arguments follow."""
    _need("node", "npm")
    source = TESTS / "clients" / "js"
    packages = _made("node", [source / "package.json", source / ".npmrc"], lambda target: _npm(source, target))
    for each in source.glob("*.mjs"):  # Node looks for packages beside the program that names them
        shutil.copy(each, packages)
    return ["node", str(packages / program)]


def _need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}, which this machine does not have")


def _made(name: str, files: list[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, made again when one of the files has changed."""
    content = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = FOLDER / f"{name}-{content}"
    if not folder.exists():
        FOLDER.mkdir(exist_ok=True)
        target = Path(tempfile.mkdtemp(dir=FOLDER))
        make(target)
        try:
            target.rename(folder)
        except OSError:  # another run was first
            shutil.rmtree(target)
    return folder


def _maven(source: Path, target: Path) -> None:
    _run(["mvn", "-q", "-B", "-ntp", "-f", str(source / "pom.xml"), f"-Dfolder={target}", "compile"], source)


def _npm(source: Path, target: Path) -> None:
    for name in ("package.json", ".npmrc"):
        shutil.copy(source / name, target)
    _run(["npm", "install", "--prefer-offline"], target)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=MAKING)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
