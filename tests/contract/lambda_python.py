"""The Python that Lambda runs, if this machine has one."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def find_python(version: str) -> str | None:
    """Return the interpreter of a version, as ``make`` finds it."""
    command = [sys.executable, str(ROOT / "requirements/find_python.py"), version]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    return found or None
