"""The server's work directory, and the end of those that killed servers have left.

A directory belongs to the process that holds the lock on its ``owner`` file. The kernel drops the lock
with the process, however it ends, so a directory whose lock is free is nobody's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "truthloop-local-"
_OWNER = "owner"


def make() -> Path:
    """Make a work directory for this process, and delete those of processes that are gone."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _delete_if_left(left)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Locked before it has its name: nobody ever sees an owner file that is free while we live. The
    # descriptor stays open, and with it the lock, until the process ends.
    unnamed = directory / "owner.new"
    _lock(unnamed, os.O_CREAT)
    unnamed.rename(directory / _OWNER)
    return directory


def _lock(path: Path, flags: int = 0) -> int:
    """Return a descriptor that holds the lock until it is closed.

    Raises
    ------
    OSError
        The file does not exist, is another user's, or is locked (BlockingIOError).
    """
    descriptor = os.open(path, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _delete_if_left(directory: Path) -> None:
    try:
        descriptor = _lock(directory / _OWNER)
    except OSError:
        return  # somebody's, or no longer there
    try:
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(descriptor)
