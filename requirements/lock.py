"""Resolve every ``*.in`` into a ``*.txt`` with hashes. Run by ``make lock``, which installs uv.

What is locked stays as it is while it fits; with ``UPGRADE=1`` the newest allowed versions are taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
EVERYWHERE = ("--universal", "--python-version", "3.11")
HERE = ("--python-version", "3.11")
# The images: Python 3.12 on x86-64 Linux, wheels only.
IMAGE = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:")
LOCKS = {
    "requirements/demo.in": EVERYWHERE,
    "requirements/test.in": EVERYWHERE,
    "requirements/sam.in": EVERYWHERE,
    "requirements/handlers.in": EVERYWHERE,
    "requirements/sdk.in": HERE,
    "requirements/bench.in": HERE,
    "layers/common/requirements.in": ("--universal", "--python-version", "3.13"),
    "containers/base/requirements.in": (*IMAGE, "--no-annotate"),
    "containers/training/requirements.in": (*IMAGE, "--no-annotate"),
    "containers/inference/requirements.in": (*IMAGE, "--no-annotate"),
}
"""Each input with the platform that it is resolved for; the base comes before those that keep to its lock."""


def main() -> None:
    """Write each lock file."""
    for source, platform in LOCKS.items():
        target = source.removesuffix(".in") + ".txt"
        print(f"{source} -> {target}", flush=True)
        command = [str(UV), "pip", "compile", "--quiet", "--generate-hashes", *platform]
        command += ["--upgrade"] if os.environ.get("UPGRADE") else []
        environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
        subprocess.run([*command, source, "-o", target], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
