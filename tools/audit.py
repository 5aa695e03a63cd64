"""Whether a pinned dependency has a known vulnerability, by pip-audit.

`python tools/audit.py` fails where one has, or where the database of vulnerabilities can't be asked; with
`--if-reachable` the latter is said and passed over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

PINNED: Final = Path(__file__).resolve().parent.parent / "constraints.txt"
_NOBODY: Final = ("ServiceError", "ConnectionError", "Could not connect", "could not be audited")
"""What pip-audit's last words hold when nobody told it of vulnerabilities."""


def main() -> int:
    """The command."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--if-reachable", action="store_true")
    passes = reader.parse_args().if_reachable
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "--progress-spinner=off"]
    done = subprocess.run([*command, "--timeout=10", "-r", str(PINNED)], check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if passes and done.returncode and any(word in said for word in _NOBODY):
        print("pip-audit: the database of vulnerabilities can't be reached from here; nothing was audited")
        return 0
    print(said, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
