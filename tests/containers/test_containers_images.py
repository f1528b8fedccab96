"""The Dockerfiles, what they install and what they copy."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.sagemaker.images import Stage, parse_dockerfile
from tests.containers.conftest import CONTAINERS

IMAGES = ("training", "inference")
FILES = ("base", *IMAGES)
HADOLINT = Path(sys.executable).parent / "hadolint"
MODULES = {"pillow": "PIL"}
"""Packages whose module is called otherwise."""


def instructions(image: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (CONTAINERS / image / "Dockerfile").read_text().splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword.isupper():
            found.setdefault(keyword, []).append(rest)
    return found


def stage(image: str) -> Stage:
    """What the image has, with what it has from the base."""
    return parse_dockerfile(CONTAINERS / image / "Dockerfile")


def pins(image: str) -> dict[str, str]:
    text = (CONTAINERS / image / "requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


def wanted(image: str) -> set[str]:
    """What the image's own input asks for."""
    text = (CONTAINERS / image / "requirements.in").read_text()
    return set(re.findall(r"^([a-z0-9][a-z0-9-]*)", text, re.MULTILINE))


def imported(image: str) -> tuple[set[str], set[str]]:
    """Walk the imports of an image's entry point; returns its own packages and those of others."""
    ours, others = set(), set()
    seen: set[Path] = set()
    found = [CONTAINERS / image / "__main__.py"]
    while found:
        path = found.pop()
        if path in seen:
            continue
        seen.add(path)
        ours.add(path.relative_to(CONTAINERS).parts[0])
        for name in _names(ast.parse(path.read_text("utf-8"))):
            parts = name.split(".")
            if not (CONTAINERS / parts[0] / "__init__.py").is_file():
                others.add(parts[0])
                continue
            for end in range(1, len(parts) + 1):
                place = CONTAINERS.joinpath(*parts[:end])
                candidates = (place / "__init__.py", place.with_suffix(".py"))
                found.extend(each for each in candidates if each.exists())
    return ours, others - sys.stdlib_module_names


def _names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.update(_loaded_by_name(node.value))
    return names


def _loaded_by_name(text: str) -> set[str]:
    """``package.module:function`` names an entry point; ``package.module.`` begins the names of a folder."""
    if not re.fullmatch(r"([a-z_]+\.)+([a-z_]+:[a-z_]+)?", text):
        return set()
    module = text.partition(":")[0]
    place = CONTAINERS.joinpath(*module.split("."))
    if place.with_suffix(".py").is_file():
        return {module}
    return {f"{text}{path.stem}" for path in place.glob("*.py")} if text.endswith(".") else set()


@pytest.mark.parametrize("image", FILES)
def test_the_dockerfile_is_clean(image: str) -> None:
    path = CONTAINERS / image / "Dockerfile"
    found = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_base_is_pinned_by_its_digest() -> None:
    sources = [source.removesuffix(" AS build") for source in instructions("base")["FROM"]]
    assert len(sources) == 2
    assert len(set(sources)) == 1
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+@sha256:[0-9a-f]{64}", sources[0])


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_starts_its_entry_point_and_from_the_base(image: str) -> None:
    found = instructions(image)
    assert found["ARG"] == ["BASE=truthloop-base"]
    assert found["FROM"] == ["${BASE} AS build", "${BASE}"]
    assert stage(image).entrypoint == ("python", "-m", image)
    assert stage(image).workdir == "/opt/program"


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_has_the_packages_that_its_entry_point_imports_and_no_others(image: str) -> None:
    copied = dict(stage(image).copies)
    assert copied == {package: f"/opt/program/{package}" for package in imported(image)[0]}


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_installs_what_its_entry_point_imports_and_no_more(image: str) -> None:
    # uvicorn loads its loop and its parser by name.
    by_name = {"httptools", "uvloop"} if image == "inference" else set()
    installed = {MODULES.get(name, name) for name in pins(image)}
    asked = {MODULES.get(name, name) for name in wanted(image) | wanted("base")}
    used = imported(image)[1] | by_name
    assert used <= installed
    assert asked <= used


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_asks_for_the_gpus(image: str) -> None:
    # Without this a container on a GPU instance sees none, and torch trains on its CPUs at the GPUs' price.
    environment = dict(stage(image).environment)
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_the_server_does_not_run_as_root() -> None:
    assert instructions("inference")["USER"] == ["10001"]
    assert any("--uid 10001" in command for command in instructions("base")["RUN"])


@pytest.mark.parametrize("image", FILES)
def test_every_requirement_is_pinned_by_hash(image: str) -> None:
    blocks = re.split(
        r"\n(?=[a-z])", (CONTAINERS / image / "requirements.txt").read_text().partition("\n")[2]
    )
    pinned = [block for block in blocks if re.match(r"[a-z0-9-]+==", block)]
    assert len(pinned) == len(pins(image)) > 10
    assert all("--hash=sha256:" in block for block in pinned)
    assert wanted(image) <= set(pins(image))
    assert all("--require-hashes" in command for command in instructions(image)["RUN"] if "pip" in command)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_adds_to_the_base_and_changes_nothing_of_it(image: str) -> None:
    # What is installed already is not installed again: another version in the lock would be a lie.
    assert pins("base").items() <= pins(image).items()


def test_the_base_has_the_torch_that_knows_v100_and_t4() -> None:
    # The default index's last build for CUDA 12.6; it has kernels for sm_70 (V100) and sm_75 (T4).
    assert pins("base")["torch"] == "2.7.1"
    assert pins("base")["nvidia-cuda-runtime-cu12"].startswith("12.6.")


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOADERS = {"torch.load", "torch.jit.load", "torch.export.load", "torch.hub.load", "torch.package"}


def test_no_code_of_the_images_loads_a_pickle() -> None:
    # torch 2.7.1's advisories are about exactly that: docs/decisions.md.
    for image in IMAGES:
        for package in imported(image)[0]:
            for path in (CONTAINERS / package).rglob("*.py"):
                tree = ast.parse(path.read_text("utf-8"))
                assert not {name.partition(".")[0] for name in _names(tree)} & UNPICKLERS, path
                calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
                assert not calls & LOADERS, path


def make_images(tmp_path: Path, docker: str | None, *settings: str) -> tuple[int, list[str]]:
    """Run ``make images`` with that script as docker and no other program than it needs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cat", "cut", "sha256sum"):
        (tools / name).symlink_to(str(shutil.which(name)))
    if docker is not None:
        (tools / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tools / "docker").chmod(0o755)
    found = subprocess.run(
        [str(shutil.which("make")), "--no-print-directory", "images", *settings],
        cwd=CONTAINERS.parent,
        env={"PATH": str(tools)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout.splitlines()


BUILD = "docker buildx build --platform linux/amd64 --provenance=false --output type=docker"


def builds(prefix: str, base: str, tag: str) -> list[str]:
    return [
        f"{BUILD} --build-arg BASE={base} -t {prefix}{image}:{tag}"
        f" -f containers/{image}/Dockerfile containers"
        for image in IMAGES
    ]


def test_make_images_builds_the_base_and_both_images_from_it(tmp_path: Path) -> None:
    code, said = make_images(tmp_path, 'echo "docker $*"')
    assert code == 0
    base = re.search(r" -t (truthloop-base:[0-9a-f]{16}) ", said[0])
    assert base is not None
    assert said[0] == f"{BUILD} -t {base[1]} -f containers/base/Dockerfile containers"
    assert said[1:] == builds("truthloop-", base[1], "latest")


@pytest.mark.parametrize("pulled", [True, False])
def test_make_images_takes_the_registrys_base_and_pushes(tmp_path: Path, pulled: bool) -> None:
    script = 'echo "docker $*"\n' + ("" if pulled else '[ "$1" != pull ]')
    code, said = make_images(tmp_path, script, "REGISTRY=1.example", "TAG=v3", "PUSH=1")
    assert code == 0
    base = said[0].removeprefix("docker pull --quiet ")
    assert re.fullmatch(r"1\.example/truthloop-base:[0-9a-f]{16}", base)
    built = [] if pulled else [f"{BUILD} -t {base} -f containers/base/Dockerfile containers"]
    pushed = (base, *(f"1.example/truthloop-{image}:v3" for image in IMAGES))
    assert said[1:] == [
        *built,
        *builds("1.example/truthloop-", base, "v3"),
        *(f"docker push {name}" for name in pushed),
    ]


@pytest.mark.parametrize(
    ("docker", "settings", "message"),
    [
        (None, [], "make images needs Docker, and there is no docker on the PATH"),
        ("exit 0", ["PUSH=1"], "make images PUSH=1 needs the registry"),
        ('[ "$1" != push ]', ["PUSH=1", "REGISTRY=r"], "Error 1"),
        ("exit 1", [], "Error 1"),
    ],
)
def test_make_images_says_what_is_missing(
    tmp_path: Path, docker: str | None, settings: list[str], message: str
) -> None:
    code, said = make_images(tmp_path, docker, *settings)
    assert code != 0
    assert message in "\n".join(said)


def test_the_build_context_leaves_out_what_no_image_has() -> None:
    ignored = (CONTAINERS / ".dockerignore").read_text().split()
    assert "pipeline" in ignored
    assert not {package for image in IMAGES for package in imported(image)[0]} & set(ignored)
