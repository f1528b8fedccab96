"""Real digits, and the containers' entry points as the processes that SageMaker would start."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

CONTAINERS = Path(__file__).resolve().parents[2] / "containers"


@dataclass(frozen=True)
class Digit:
    """A real handwritten digit."""

    name: str
    image: Image.Image
    label: str

    @property
    def png(self) -> bytes:
        return encode(self.image)

    @property
    def drifted(self) -> bytes:
        """The same digit from a scanner that sends negatives."""
        return encode(ImageOps.invert(self.image))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def digits() -> list[Digit]:
    """All 1,797 digits in a fixed random order."""
    data = load_digits()
    found = [
        Digit(f"d{index:04}", Image.fromarray((pixels / 16 * 255).astype("uint8")), str(label))
        for index, (pixels, label) in enumerate(zip(data.images, data.target, strict=True))
    ]
    random.Random(0).shuffle(found)
    return found


class Job:
    """A base directory in the layout of SageMaker and the entry points that run in it."""

    def __init__(self, base: Path, containers: Path = CONTAINERS) -> None:
        self.base = base
        self.containers = containers

    @property
    def inputs(self) -> Path:
        return self.base / "processing" / "input"

    @property
    def outputs(self) -> Path:
        return self.base / "processing" / "output"

    @property
    def failure(self) -> str:
        path = self.base / "output" / "failure"
        return path.read_text("utf-8") if path.exists() else ""

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "ML_BASE_DIR": str(self.base), "AWS_DEFAULT_REGION": "us-east-1", **extra}

    def start(self, *command: str, group: bool = False, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.containers,
            env=self.environment(**environment),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=group,
        )

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Run an entry point to its end, check the exit code and return the log."""
        process = self.start(*command, **environment)
        _, log = process.communicate(timeout=120)
        assert process.returncode == code, log
        return log

    def write(self, path: str, content: bytes | str) -> Path:
        target = self.base / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def write_input(self, path: str, content: bytes | str) -> Path:
        return self.write(f"processing/input/{path}", content)

    def base_set(self, digits: Iterable[Digit]) -> None:
        for digit in digits:
            self.write_input(f"base/{digit.label}/{digit.name}.png", digit.png)

    def dataset(
        self, generation: str = "g00000001", labels: Iterable[dict[str, Any]] = (), new: int = 0
    ) -> None:
        description = {
            "version": 1,
            "generation": generation,
            "datasetVersion": "0" * 64,
            "groundTruth": {"labels": new, "new": new, "perLabel": {}},
            "champion": None,
        }
        self.write_input("dataset/dataset.json", json.dumps(description))
        self.write_input("dataset/ground-truth.jsonl", lines(labels))

    def hyperparameters(self, **values: str) -> None:
        self.write("input/config/hyperparameters.json", json.dumps(values))

    def output(self, path: str) -> Any:
        return json.loads((self.outputs / path).read_text("utf-8"))

    def pack_model(self, target: Path) -> Path:
        """Do what SageMaker does with a training job's model directory."""
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target / "model.tar.gz", "w:gz") as archive:
            for path in sorted((self.base / "model").iterdir()):
                archive.add(path, path.name)
        return target / "model.tar.gz"


NewJob = Callable[[str], Job]


@pytest.fixture
def new_job(tmp_path: Path) -> NewJob:
    return lambda name: Job(tmp_path / name)


@pytest.fixture
def job(new_job: NewJob) -> Job:
    return new_job("ml")


def lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def label_line(
    inference_id: str, label: str, time: str = "2026-11-22T10:00:00Z", **extra: str
) -> dict[str, Any]:
    """One line of a snapshot's ground-truth.jsonl."""
    line = {"inferenceId": inference_id, "label": label, "eventTime": time, "author": "ann"}
    return line | {"source": "correction", "sequencer": "00"} | extra


def accepted_line(
    inference_id: str,
    label: str,
    time: str = "2026-11-22T10:00:00Z",
    source: str = "correction",
    **metadata: str,
) -> Any:
    """One line of an accepted ground-truth file."""
    return {
        "groundTruthData": {"data": label, "encoding": "CSV"},
        "eventMetadata": {"eventId": inference_id, "eventTime": time, "source": source, **metadata},
        "eventVersion": "0",
    }


def capture_line(
    inference_id: str | None,
    image: bytes,
    predicted: str,
    time: str = "2026-11-22T09:00:00Z",
    event_id: str = "event",
) -> dict[str, Any]:
    """One line of the endpoint's data capture."""
    metadata = {"eventId": event_id, "inferenceTime": time}
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    return {
        "captureData": {
            "endpointInput": {
                "observedContentType": "image/png",
                "mode": "INPUT",
                "data": base64.b64encode(image).decode(),
                "encoding": "BASE64",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": json.dumps({"label": predicted, "score": 0.9}),
                "encoding": "JSON",
            },
        },
        "eventMetadata": metadata,
        "eventVersion": "0",
    }
