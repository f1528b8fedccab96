"""The Dockerfiles and what they install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.conftest import CONTAINERS

IMAGES = ("training", "inference")
PACKAGES = {
    "training": {"common", "models", "dataset", "evaluation", "monitoring", "training"},
    "inference": {"common", "models", "inference"},
}
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions(image: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (CONTAINERS / image / "Dockerfile").read_text().splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword.isupper():
            found.setdefault(keyword, []).append(rest)
    return found


def pins(image: str) -> dict[str, str]:
    text = (CONTAINERS / image / "requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


@pytest.mark.parametrize("image", IMAGES)
def test_the_dockerfile_is_clean(image: str) -> None:
    path = CONTAINERS / image / "Dockerfile"
    found = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_starts_its_entry_point_and_pins_its_base(image: str) -> None:
    found = instructions(image)
    assert json.loads(found["ENTRYPOINT"][0]) == ["python", "-m", image]
    assert found["WORKDIR"] == ["/opt/program"]
    copied = {f"{package} /opt/program/{package}" for package in PACKAGES[image]}
    assert copied <= set(found["COPY"])
    assert all(re.search(r"@sha256:[0-9a-f]{64}( AS build)?$", base) for base in found["FROM"])


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_asks_for_the_gpus(image: str) -> None:
    # Without this a container on a GPU instance sees none, and torch trains on its CPUs at the GPUs' price.
    environment = dict(pair.split("=", 1) for line in instructions(image)["ENV"] for pair in line.split())
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_the_server_does_not_run_as_root() -> None:
    assert instructions("inference")["USER"] == ["10001"]


@pytest.mark.parametrize("image", IMAGES)
def test_every_requirement_is_pinned_by_hash(image: str) -> None:
    blocks = re.split(
        r"\n(?=[a-z])", (CONTAINERS / image / "requirements.txt").read_text().partition("\n")[2]
    )
    pinned = [block for block in blocks if re.match(r"[a-z0-9-]+==", block)]
    assert len(pinned) == len(pins(image)) > 10
    assert all("--hash=sha256:" in block for block in pinned)
    wanted = re.findall(r"^([a-z0-9]+)", (CONTAINERS / image / "requirements.in").read_text(), re.MULTILINE)
    assert set(wanted) <= set(pins(image))


def test_both_images_run_the_same_torch_that_knows_v100_and_t4() -> None:
    training, inference = pins("training"), pins("inference")
    # The default index's build for CUDA 12.8 is the last with kernels for sm_70 (V100); it has sm_75 (T4).
    assert training["torch"] == "2.10.0"
    assert training["nvidia-cuda-runtime-cu12"].startswith("12.8.")
    shared = set(training) & set(inference)
    assert {name: training[name] for name in shared} == {name: inference[name] for name in shared}
