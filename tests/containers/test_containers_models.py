"""The table of architectures and the artefact that holds a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import ArtifactError
from models import artifact
from models.artifact import ModelCard
from models.catalogue import challenger_of, find, names, transfer
from models.interface import ModelShape

LABELS = ["0", "1", "2"]
ARCHITECTURES = names()


def build(architecture: str, shape: ModelShape) -> torch.nn.Module:
    found = find(architecture)
    return found.build(shape, found.values({}))


def card(architecture: str = "convnet", labels: list[str] = LABELS) -> ModelCard:
    return ModelCard(architecture, labels, 16, 1, "g00000001", "old")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [ModelShape(2, 8, 1), ModelShape(10, 16, 3), ModelShape(40, 64, 3)])
def test_every_architecture_fits_any_shape(architecture: str, shape: ModelShape) -> None:
    model = build(architecture, shape).eval()
    images = torch.zeros(3, shape.channels, shape.image_size, shape.image_size)
    assert model(images).shape == (3, shape.classes)


def test_the_challenger_is_another_architecture() -> None:
    assert len(ARCHITECTURES) >= 2
    assert {challenger_of(name) for name in ARCHITECTURES} == set(ARCHITECTURES)
    assert all(challenger_of(name) != name for name in ARCHITECTURES)
    assert challenger_of("one that this image no longer has") in ARCHITECTURES
    with pytest.raises(ArtifactError, match="unknown architecture 'x': this image has convmixer, convnet"):
        build("x", ModelShape(2, 8, 1))


def test_weights_are_carried_over_label_by_label() -> None:
    before = build("convnet", ModelShape(3, 16, 1))
    after = build("convnet", ModelShape(3, 16, 1))
    fresh = after.state_dict()["head.weight"].clone()
    transfer(after, ["1", "2", "new"], before.state_dict(), LABELS)
    weights = after.state_dict()
    assert torch.equal(weights["head.weight"][:2], before.state_dict()["head.weight"][1:])
    assert torch.equal(weights["head.weight"][2], fresh[2])
    assert torch.equal(weights["features.0.0.weight"], before.state_dict()["features.0.0.weight"])
    with pytest.raises(ArtifactError, match="do not fit ConvMixer"):
        transfer(build("convmixer", ModelShape(3, 16, 1)), LABELS, before.state_dict(), LABELS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_artefact_gives_back_the_same_model(tmp_path: Path, architecture: str) -> None:
    model = build(architecture, card().shape).eval()
    artifact.save(tmp_path, card(architecture), model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    found, loaded = artifact.load(tmp_path)
    assert found == card(architecture)
    assert found.version == "g00000001/old"
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(model(images), loaded(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "no model description: TypeError"),
        ({"labels": []}, "labels must be distinct and at least one"),
        ({"labels": ["1", "1", "2"]}, "labels must be distinct"),
        ({"labels": ["1", "2"]}, "does not fit convnet"),
        ({"architecture": "pickle"}, "unknown architecture 'pickle'"),
        ({"channels": 2}, "no model takes 2 channels"),
        ({"imageSize": "large"}, "no model description: ValueError"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    artifact.save(tmp_path, card(), build("convnet", card().shape))
    (tmp_path / "model.json").write_text(json.dumps(card().to_json() | change))
    with pytest.raises(ArtifactError, match=message):
        artifact.load(tmp_path)


def test_an_artefact_can_be_read_by_another_user(tmp_path: Path) -> None:
    # A training job writes it as root; the endpoint's server, which is not root, must be able to read it.
    artifact.save(tmp_path, card(), build("convnet", card().shape))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"model.safetensors": "0o644", "model.json": "0o644"}


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.json is missing: a model artefact holds"):
        artifact.load(tmp_path)
    artifact.save(tmp_path, card(), build("convnet", card().shape))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"model.safetensors cannot be read"):
        artifact.load(tmp_path)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model.safetensors cannot be read"):
        artifact.load(tmp_path)
