"""Print the path of a Python of the version named, if this machine has one: on PATH or under pyenv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def candidates(version: str) -> list[str]:
    """Return the places where an interpreter of ``version`` (such as ``3.13``) may be."""
    found = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in sorted(pyenv.glob(f"{version}*/bin/python{version}"))]
    return [path for path in found if path]


def works(path: str, version: str) -> bool:
    """Tell whether ``path`` really runs that version (a shim may be there for a version that is not)."""
    command = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode == 0 and result.stdout.strip() == version


if __name__ == "__main__":
    print(next((path for path in candidates(sys.argv[1]) if works(path, sys.argv[1])), ""))
