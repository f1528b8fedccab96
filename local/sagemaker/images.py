"""Image URIs resolved to Dockerfiles, and Dockerfiles read as far as a process needs them.

``…/truthloop-training:latest`` is ``<root>/training/Dockerfile`` with ``<root>`` as build context.
Of its last stage ENTRYPOINT, CMD, ENV, WORKDIR and COPY count, and what it has from the image that it
starts from, when that is one of ours too (``FROM truthloop-base``, also by an ARG's default). COPY becomes
links below a directory that stands for the container's file system, so a package that the Dockerfile
forgets is missing here as well. RUN is not run: the interpreter is the one that runs the server.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from local.sagemaker.errors import JobError

ROOTS_VARIABLE = "TRUTHLOOP_IMAGES"
"""Directories with images, separated as in PATH; the default is the repository's ``containers/``."""

NAME_PREFIX = "truthloop-"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON = re.compile(r"(/usr(/local)?/bin/)?python(3(\.\d+)?)?")
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_IGNORED = frozenset(
    ("RUN", "EXPOSE", "LABEL", "USER", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "SHELL", "ONBUILD", "ADD")
)


class ImageError(JobError):
    """An image does not exist, or its Dockerfile makes no image that SageMaker can start."""


@dataclass(frozen=True)
class Stage:
    """What one build stage has set so far."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    workdir: str = "/"
    copies: tuple[tuple[str, str], ...] = ()
    files: tuple[Path, ...] = ()
    """The Dockerfiles that were read for it: its own, and those of the images that it starts from."""


@dataclass(frozen=True)
class Image:
    """An image that can be started as a process.

    Attributes
    ----------
    uri
        The URI that it was asked for by.
    rootfs
        Directory that stands for the container's file system, with what COPY put there.
    """

    uri: str
    rootfs: Path
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"

    @property
    def cwd(self) -> Path:
        """WORKDIR on this machine."""
        return self.rootfs / self.workdir.lstrip("/")

    def localise(self, value: str, ml_base: Path) -> str:
        """Map a container path, or a colon-separated list of them, to this machine.

        ``/opt/ml`` is the job's own directory; other absolute paths are mapped when the image has
        them. Anything else is returned as it is.
        """
        if ":/" in value and not value.startswith(("s3:", "http:", "https:", "arn:")):
            return ":".join(self._localise_one(part, ml_base) for part in value.split(":"))
        return self._localise_one(value, ml_base)

    def _localise_one(self, value: str, ml_base: Path) -> str:
        if value == "/opt/ml" or value.startswith("/opt/ml/"):
            return str(ml_base) + value.removeprefix("/opt/ml")
        if value.startswith("/") and value != "/":
            local = self.rootfs / value.lstrip("/")
            if local.exists():
                return str(local)
        return value

    def argv(self, entrypoint: list[str] | None, arguments: list[str] | None, ml_base: Path) -> list[str]:
        """Return the command line of a process of this image.

        Parameters
        ----------
        entrypoint, arguments
            Replace ENTRYPOINT and CMD as the SageMaker APIs say; None keeps the image's own. As in
            Docker, a replaced entry point drops CMD.
        ml_base
            What stands for ``/opt/ml``.

        Raises
        ------
        ImageError
            There is nothing to run, or the program does not exist.
        """
        head = list(self.entrypoint) if entrypoint is None else entrypoint
        tail = arguments if arguments is not None else (list(self.command) if entrypoint is None else [])
        words = [self.localise(word, ml_base) for word in (*head, *tail)]
        if not words:
            raise ImageError(
                f"ClientError: image {self.uri} has no ENTRYPOINT and no CMD, and the request names no "
                "ContainerEntrypoint: there is nothing to run."
            )
        return [self._program(words[0]), *words[1:]]

    def _program(self, word: str) -> str:
        if _PYTHON.fullmatch(word):
            return sys.executable
        search = f"{Path(sys.executable).parent}:{self.environment.get('PATH', DEFAULT_PATH)}"
        found = shutil.which(word, path=search) if "/" not in word else shutil.which(str(self.cwd / word))
        if found is None:
            raise ImageError(
                f'ClientError: exec: "{word}": executable file not found in image {self.uri} '
                "(not a COPY of its Dockerfile, and no program of this machine's Python environment)."
            )
        return found


_Times = tuple[tuple[Path, int], ...]
"""Dockerfiles and when they were changed, in nanoseconds."""


class ImageStore:
    """Finds images and keeps them laid out as long as their Dockerfiles do not change."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._images: dict[Path, tuple[_Times, Image]] = {}
        self._laid_out = 0
        self._lock = threading.Lock()

    def resolve(self, uri: str) -> Image:
        """Return the image behind a URI.

        Raises
        ------
        ImageError
            No such image, or its Dockerfile cannot be used; the message says which and why.
        """
        name = repository_name(uri)
        if not _REPOSITORY.fullmatch(name):
            raise ImageError(
                f"ClientError: Cannot pull image {uri}: {name!r} is no repository name (lower-case letters "
                "and digits, with . _ - between them)."
            )
        roots = image_roots()
        for root in roots:
            dockerfile = root / name.removeprefix(NAME_PREFIX) / "Dockerfile"
            if dockerfile.is_file():
                break
        else:
            raise ImageError(
                f"ClientError: Cannot pull image {uri}: image not found. The repository {name!r} should "
                f"be a folder {name.removeprefix(NAME_PREFIX)!r} with a Dockerfile below "
                f"{' or '.join(map(str, roots))}."
            )
        with self._lock:
            times, image = self._images.get(dockerfile, ((), None))
            if image is None or times != _times(path for path, _ in times):
                stage = parse_dockerfile(dockerfile)
                image = _lay_out(stage, dockerfile, root, self._workdir / f"{name}-{self._laid_out}")
                self._images[dockerfile] = (_times(stage.files), image)
                self._laid_out += 1
            return replace(image, uri=uri)


def _times(paths: Iterable[Path]) -> _Times:
    return tuple((path, path.stat().st_mtime_ns if path.is_file() else 0) for path in paths)


def image_roots() -> list[Path]:
    """Return the directories in which images are looked for."""
    configured = os.environ.get(ROOTS_VARIABLE)
    if configured:
        return [Path(part).resolve() for part in configured.split(os.pathsep) if part]
    return [Path(__file__).resolve().parents[2] / "containers"]


def repository_name(uri: str) -> str:
    """Return the last path part of an image URI without tag and digest."""
    return uri.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]


def parse_dockerfile(path: Path, children: tuple[Path, ...] = ()) -> Stage:
    """Read a Dockerfile and return its last stage.

    Parameters
    ----------
    path
        ``<root>/<name>/Dockerfile``; the images that it starts from lie below the same root.
    children
        The Dockerfiles that start from this one, which therefore must not occur again.

    Raises
    ------
    ImageError
        It has no FROM, an instruction that is none, or starts from an image of ours that does not exist or
        from itself; the message names file and line.
    """
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    arguments: dict[str, str] = {}
    for number, line in _instructions(path):
        word, _, rest = line.partition(" ")
        word, rest = word.upper(), rest.strip()
        where = f"{path.parent.name}/Dockerfile:{number}"
        if word == "FROM":
            source, _, name = re.sub(r"--\S+\s+", "", rest).partition(" ")
            source = _VARIABLE.sub(lambda m: arguments.get(m[1] or m[3], m[2] or ""), source)
            stage = stages[source] if source in stages else _base(source, path, children, where)
            if name.strip():
                stages[name.split()[-1]] = stage
            current = name.split()[-1] if name.strip() else ""
            continue
        if word == "ARG":
            key, _, value = rest.partition("=")
            arguments[key] = value.strip("\"'")
            continue
        if stage is None:
            raise ImageError(f"ClientError: invalid image: {where} has {word} before FROM.")
        stage = _apply(stage, word, rest, arguments, where)
        if current:
            stages[current] = stage
    if stage is None:
        raise ImageError(f"ClientError: invalid image: {path.parent.name}/Dockerfile has no FROM.")
    return replace(stage, files=(path, *(file for file in stage.files if file != path)))


def _base(source: str, path: Path, children: tuple[Path, ...], where: str) -> Stage:
    """Return what an image has from the one that it starts from: nothing, when that is not ours."""
    if not source:
        raise ImageError(f"ClientError: invalid image: {where} starts from an ARG without a value.")
    name = repository_name(source)
    if not name.startswith(NAME_PREFIX):
        return Stage()
    base = path.parents[1] / name.removeprefix(NAME_PREFIX) / "Dockerfile"
    if base in (path, *children):
        raise ImageError(f"ClientError: invalid image: {where} starts from {source}, so from itself.")
    if not base.is_file():
        raise ImageError(
            f"ClientError: invalid image: {where} starts from {source}, which should be "
            f"{base.parent.name}/Dockerfile beside it."
        )
    return parse_dockerfile(base, (path, *children))


def _instructions(path: Path) -> list[tuple[int, str]]:
    """Return the logical lines with the number of their first line."""
    result: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, raw in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        start = start or number
        if raw.rstrip().endswith("\\"):
            pending += raw.rstrip()[:-1] + " "
            continue
        result.append((start, (pending + raw).strip()))
        pending, start = "", 0
    if pending:
        result.append((start, pending.strip()))
    return result


def _apply(stage: Stage, word: str, rest: str, arguments: dict[str, str], where: str) -> Stage:
    known = {**arguments, **dict(stage.environment)}

    def expand(text: str) -> str:
        return _VARIABLE.sub(lambda m: known.get(m[1] or m[3], m[2] or ""), text)

    if word == "ENV":
        return replace(
            stage, environment=(*stage.environment, *((k, expand(v)) for k, v in _pairs(rest, where)))
        )
    if word == "WORKDIR":
        return replace(stage, workdir=os.path.normpath(os.path.join(stage.workdir, expand(rest))))
    if word == "ENTRYPOINT":
        return replace(stage, entrypoint=_words(rest, where), command=())
    if word == "CMD":
        return replace(stage, command=_words(rest, where))
    if word == "COPY":
        return replace(stage, copies=(*stage.copies, *_copies(expand(rest), stage.workdir, where)))
    if word not in _IGNORED:
        raise ImageError(f"ClientError: invalid image: {where} has an unknown instruction {word!r}.")
    return stage


def _pairs(rest: str, where: str) -> list[tuple[str, str]]:
    if "=" not in rest.split(None, 1)[0]:
        key, _, value = rest.partition(" ")
        return [(key, value.strip())]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise ImageError(f"ClientError: invalid image: {where}: {error}.") from error
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _words(rest: str, where: str) -> tuple[str, ...]:
    if not rest.startswith("["):
        return ("/bin/sh", "-c", rest)
    try:
        words = json.loads(rest)
    except json.JSONDecodeError as error:
        raise ImageError(f"ClientError: invalid image: {where} is no JSON array: {error}.") from error
    if not all(isinstance(word, str) for word in words):
        raise ImageError(f"ClientError: invalid image: {where} must be an array of strings.")
    return tuple(words)


def _copies(rest: str, workdir: str, where: str) -> list[tuple[str, str]]:
    if "--from=" in rest:
        return []  # the product of a build stage; nothing is built here
    rest = re.sub(r"--\S+\s+", "", rest)
    words = list(_words(rest, where)) if rest.startswith("[") else rest.split()
    if len(words) < 2:
        raise ImageError(f"ClientError: invalid image: {where}: COPY needs a source and a destination.")
    *sources, target = words
    directory = target.endswith("/") or len(sources) > 1
    target = os.path.normpath(os.path.join(workdir, target))
    return [(source, target + ("/" if directory else "")) for source in sources]


def _lay_out(stage: Stage, dockerfile: Path, context: Path, rootfs: Path) -> Image:
    (rootfs / stage.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for pattern, target in stage.copies:
        sources = sorted(context.glob(pattern)) if pattern not in (".", "./") else [context]
        if not sources:
            raise ImageError(
                f"ClientError: invalid image: {dockerfile.parent.name}/Dockerfile copies {pattern!r}, "
                f"which does not exist in the build context {context}."
            )
        for source in sources:
            destination = rootfs / target.lstrip("/")
            if source.is_file() and target.endswith("/"):
                destination /= source.name
            _link(source, destination)
    environment = dict(stage.environment)
    return Image(
        uri="",
        rootfs=rootfs,
        entrypoint=stage.entrypoint,
        command=stage.command,
        environment=environment,
        workdir=stage.workdir,
    )


def _link(source: Path, destination: Path) -> None:
    """Put ``source`` at ``destination``: a directory's content is merged, as COPY does."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if not destination.exists():
        destination.symlink_to(source)
        return
    if source.is_file():
        destination.unlink()
        destination.symlink_to(source)
        return
    if destination.is_symlink():
        earlier = destination.resolve()
        destination.unlink()
        destination.mkdir()
        _link(earlier, destination)
    for child in source.iterdir():
        if child.name != "__pycache__":
            _link(child, destination / child.name)
