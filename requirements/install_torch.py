"""Install torch's CPU build into the running environment, from the nearest place that has one.

``python requirements/install_torch.py`` tries, in this order: what is installed already; the index
that ``TORCH_INDEX_URL`` names; a build that pip finds on this machine (``PIP_FIND_LINKS`` and the
like); the default index, whose Linux build brings gigabytes of CUDA. It says which one it takes.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENT = Path(__file__).with_name("torch.txt")


def pip(*arguments: str, quiet: bool = False) -> bool:
    """Run pip in this environment; tell whether it succeeded."""
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments, "-r", str(REQUIREMENT)]
    return subprocess.run(command, stdout=output, stderr=output, check=False).returncode == 0


def main() -> int:
    """Install torch, or say what to do."""
    wanted = REQUIREMENT.read_text().strip()
    version = wanted.partition("==")[2]
    try:
        installed = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed is not None and installed.partition("+")[0] == version:
        print(f"torch {installed} is installed already")
        return 0
    # torch's own dependencies stand, with hashes, in demo.txt.
    if index := os.environ.get("TORCH_INDEX_URL"):
        print(f"torch: installing {wanted} from the index that TORCH_INDEX_URL names", flush=True)
        if pip("--no-deps", "--index-url", index):
            return 0
        print(f"torch: {index} has no {wanted} for this Python; see the message above", file=sys.stderr)
        return 1
    if pip("--no-deps", "--no-index", quiet=True):
        print(f"torch: installed {wanted} from a build found on this machine")
        return 0
    print(
        f"torch: no local build of {wanted} found; installing the default index's build. On Linux it brings\n"
        "       gigabytes of CUDA libraries. To get the CPU build instead, stop this and run\n"
        "       make install TORCH_INDEX_URL=<an index with CPU builds of torch>",
        flush=True,
    )
    if pip():
        return 0
    print(f"torch: {wanted} could not be installed; see pip's message above", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
