"""Resolve every ``*.in`` into a ``*.txt`` with hashes. Run by ``make lock``, which installs uv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
# Input, the oldest Python it is installed on, and whether one file serves every platform.
LOCKS = [
    ("requirements/demo.in", "3.11", True),
    ("requirements/test.in", "3.11", True),
    ("requirements/sam.in", "3.11", True),
    ("requirements/sdk.in", "3.11", False),
    ("layers/common/requirements.in", "3.13", True),
    ("requirements/handlers.in", "3.11", True),
    ("containers/training/requirements.in", "3.12", True),
    ("containers/inference/requirements.in", "3.12", True),
]


def main() -> None:
    """Write each lock file."""
    for source, python, universal in LOCKS:
        target = source.removesuffix(".in") + ".txt"
        print(f"{source} -> {target}", flush=True)
        command = [str(UV), "pip", "compile", "--quiet", "--generate-hashes", "--python-version", python]
        command += ["--universal"] if universal else []
        environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
        subprocess.run([*command, source, "-o", target], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
