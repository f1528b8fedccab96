"""Which Python runs a function."""

from __future__ import annotations

import functools
import logging
import re
import shutil
import subprocess
import sys
import threading

from local.lambda_runtime.errors import InvalidRuntimeError

log = logging.getLogger("local.lambda")

_looking = threading.Lock()
"""One search at a time: a stack creates its functions at once, and each would start the same processes."""

RUNTIME = re.compile(r"python(3\.\d+)")


def is_supported(runtime: str | None) -> bool:
    """Tell whether functions of ``runtime`` can run here: all of Python's, no others."""
    return bool(runtime and RUNTIME.fullmatch(runtime))


def find(runtime: str, configured: str = "") -> str:
    """Return the interpreter for ``runtime`` (``python3.13``).

    In this order: the configured one; the current one if it has the runtime's version; that version on PATH
    if it can import awslambdaric and boto3; the current one, whatever its version.

    Raises
    ------
    InvalidRuntimeError
        When the configured interpreter cannot run the runtime interface client.
    """
    with _looking:
        return _configured(configured) if configured else _find(runtime)


def _configured(executable: str) -> str:
    if not _is_usable(executable):
        raise InvalidRuntimeError(
            "InvalidRuntimeException",
            f"TRUTHLOOP_LAMBDA_PYTHON={executable} does not run, or cannot import awslambdaric and "
            "boto3. Install both for it, or unset the variable.",
        )
    return executable


@functools.cache
def _find(runtime: str) -> str:
    match = RUNTIME.fullmatch(runtime)
    version = match.group(1) if match else ""
    current = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version == current:
        return sys.executable
    candidate = shutil.which(f"python{version}")
    if candidate and _is_usable(candidate):
        return candidate
    log.warning(
        "functions of %s run on Python %s: no python%s with awslambdaric is on PATH",
        runtime,
        current,
        version,
    )
    return sys.executable


@functools.cache
def _is_usable(executable: str) -> bool:
    try:
        done = subprocess.run(
            [executable, "-I", "-c", "import awslambdaric, boto3"],
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
