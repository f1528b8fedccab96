"""Unpacked zips: one read-only directory per content, shared by every worker that needs it."""

from __future__ import annotations

import compileall
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path

from local.lambda_runtime.errors import InvalidRuntimeError

MANY_MODULES = 40
"""From this many modules on, byte-compiling goes to a process of its own: it would hold the server's GIL."""


class Artifacts:
    """Unpacks code and layers below one directory.

    Parameters
    ----------
    root
        Directory of the unpacked trees; created when needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def unpack(self, kind: str, zips: Sequence[bytes], python: str) -> Path:
        """Return the directory that holds ``zips``, unpacked in order (later ones win), byte-compiled.

        The modules are compiled here because workers may not write there, as on Lambda: without it every
        cold start would compile everything that it imports.

        Raises
        ------
        InvalidRuntimeError
            When a zip is damaged.
        """
        digest = hashlib.sha256(python.encode())
        for data in zips:
            digest.update(hashlib.sha256(data).digest())
        target = self._root / kind / digest.hexdigest()[:24]
        with self._guard:
            lock = self._locks.setdefault(target, threading.Lock())
        with lock:
            if not target.exists():
                self._build(target, zips, python)
        return target

    def _build(self, target: Path, zips: Sequence[bytes], python: str) -> None:
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        draft.mkdir(parents=True)
        try:
            for data in zips:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for entry in archive.infolist():
                        path = Path(archive.extract(entry, draft))
                        mode = entry.external_attr >> 16
                        if path.is_file() and mode & stat.S_IXUSR:
                            path.chmod(0o755)
        except zipfile.BadZipFile as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise InvalidRuntimeError(
                "InvalidZipFileException", f"Lambda was not able to unzip the file: {error}"
            ) from error
        _compile(draft, target, python)
        draft.rename(target)
        _make_read_only(target)

    def remove(self) -> None:
        """Delete everything that was unpacked."""
        for folder, directories, _ in os.walk(self._root):
            for name in directories:
                (Path(folder) / name).chmod(0o755)
        shutil.rmtree(self._root, ignore_errors=True)


def _compile(draft: Path, target: Path, python: str) -> None:
    modules = sum(1 for _ in draft.rglob("*.py"))
    if python == sys.executable and modules < MANY_MODULES:
        compileall.compile_dir(str(draft), quiet=2, stripdir=str(draft), prependdir=str(target))
        return
    # A module that does not compile fails when it is imported, with a better message than we could give.
    subprocess.run(
        [python, "-I", "-m", "compileall", "-qq", "-s", str(draft), "-p", str(target), str(draft)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _make_read_only(target: Path) -> None:
    for folder, _, files in os.walk(target):
        for name in files:
            path = Path(folder) / name
            path.chmod(0o555 if path.stat().st_mode & stat.S_IXUSR else 0o444)
        Path(folder).chmod(0o555)
