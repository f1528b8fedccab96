"""The table of architectures and the artefact that holds a trained model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from common.errors import ArtifactError, ContractError
from models import architectures, artifact
from models.artifact import ModelCard
from models.catalogue import Architecture, challenger_of, find, names, order_of, require_known, transfer
from models.interface import Choice, Hyperparameter, ModelShape

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


def test_the_registered_digest_vouches_for_the_labels_too(tmp_path: Path) -> None:
    artifact.save(tmp_path, card(), build("convnet", card().shape))
    digest = artifact.weights_digest(tmp_path)
    assert artifact.load(tmp_path, digest)[0] == card()
    swapped = [LABELS[1], LABELS[0], *LABELS[2:]]
    (tmp_path / "model.json").write_text(json.dumps(card().to_json() | {"labels": swapped}))
    with pytest.raises(ArtifactError, match=r"model.json is not the one that model.safetensors was saved"):
        artifact.load(tmp_path, digest)
    # Weights of before say nothing of it.
    save_file(artifact.load_weights(tmp_path), tmp_path / "model.safetensors")
    assert artifact.load(tmp_path, artifact.weights_digest(tmp_path))[0].labels == swapped


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


# -- what a model's file may say ---------------------------------------------------------------------------


FILE = """
from torch import nn
from models.interface import Choice, Hyperparameter, Preferences

PREFERENCES = Preferences(image_size=24, channels=3)

def hyperparameters():
    return (Hyperparameter("width", 4, 1, 9, whole=True), Choice("kind", ("a", "b")))

class Net(nn.Module):
    def __init__(self, shape, width):
        super().__init__()
        self.body = nn.Conv2d(shape.channels, width, 1)
        self.head = nn.Linear(width, shape.classes)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))

def build(shape, values):
    return Net(shape, values["width"])
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Architecture]:
    folder = tmp_path / "architectures"
    folder.mkdir()
    (folder / "own.py").write_text(FILE)
    (folder / "_parts.py").write_text("")
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(folder)])
    yield find("own")
    sys.modules.pop("models.architectures.own", None)


def test_a_file_is_an_architecture_unless_it_is_a_part(own: Architecture) -> None:
    assert names() == ["convmixer", "convnet", "own"]
    assert own.shape(ModelShape(5, 16, 1)) == ModelShape(5, 24, 3)
    assert find("convnet").shape(ModelShape(5, 16, 1)) == ModelShape(5, 16, 1)
    assert own.preferences.learning_rate == find("convnet").preferences.learning_rate == 3e-3


def test_values_are_read_from_texts_and_checked(own: Architecture) -> None:
    assert own.values({}) == {"width": 4, "kind": "a"}
    assert own.values({"width": "7", "kind": "b"}) == {"width": 7, "kind": "b"}
    assert isinstance(own.values({"width": "7"})["width"], int)
    for given, message in (
        ({"width": "7.5"}, "width of own is 7.5: it must be a whole number between 1 and 9"),
        ({"width": "wide"}, "width of own is wide: it must be a whole number"),
        ({"kind": "c"}, "kind of own is 'c': it must be one of a, b"),
        ({"depth": 3.0}, "own has no hyperparameter depth: it has width, kind"),
    ):
        with pytest.raises(ArtifactError, match=message):
            own.values(given)


def test_a_job_names_architectures_and_hyperparameters_that_there_are(own: Architecture) -> None:
    assert order_of("convnet, own") == ("convnet", "own")
    for text, message in (
        ("convnet,resnet", "this image has no 'resnet', it has convmixer, convnet, own"),
        ("", "this image has no ''"),
        ("own,own", "name each one once"),
    ):
        with pytest.raises(ContractError, match=message):
            order_of(text)
    require_known({"width": "8", "kind": "b"}, ("convnet", "own"), "model_")
    with pytest.raises(
        ContractError, match="unknown hyperparameter model_depth: convnet, own have model_kind"
    ):
        require_known({"depth": "8"}, ("convnet", "own"), "model_")
    with pytest.raises(ArtifactError, match="width of own is 99"):
        require_known({"width": "99"}, ("convnet", "own"), "model_")


def test_words_among_the_values_are_kept(own: Architecture, tmp_path: Path) -> None:
    values = own.values({"kind": "b"})
    written = ModelCard("own", LABELS, 24, 3, "g00000002", "new", values)
    artifact.save(tmp_path, written, written.build())
    assert artifact.load(tmp_path)[0] == written


def test_weights_beside_the_file_are_where_training_begins(own: Architecture) -> None:
    beside = Path(str(own.module.__file__)).with_suffix(".safetensors")
    model = own.build(ModelShape(3, 24, 3), own.values({}))
    assert not own.begin(model)
    pretrained = own.build(ModelShape(1000, 24, 3), own.values({})).state_dict()
    save_file(pretrained, beside)
    head = model.state_dict()["head.weight"].clone()
    assert own.begin(model)
    assert torch.equal(model.state_dict()["body.weight"], pretrained["body.weight"])
    assert torch.equal(model.state_dict()["head.weight"], head)  # of a thousand other labels
    save_file({"other": torch.zeros(1)}, beside)
    with pytest.raises(ArtifactError, match=r"own.safetensors, the weights to start own from, does not fit"):
        own.begin(model)
    beside.write_bytes(b"no weights")
    with pytest.raises(ArtifactError, match=r"own.safetensors, the weights to start own from: "):
        own.begin(model)


def test_a_model_whose_file_is_gone_or_has_changed_says_so(own: Architecture, tmp_path: Path) -> None:
    written = ModelCard("own", LABELS, 24, 3, "g00000002", "new", own.values({}))
    artifact.save(tmp_path, written, written.build())
    way_out = "own.py must be in the images as it was when that was trained: restore it"
    file = Path(str(own.module.__file__))
    content = own.module.__dict__
    content["hyperparameters"] = tuple  # the file has changed: nothing may be set any more
    with pytest.raises(ArtifactError, match=f"own has no hyperparameter kind, width.*{way_out}"):
        artifact.load(tmp_path)
    content["hyperparameters"] = lambda: (Hyperparameter("width", 4, 1, 9), Choice("kind", ("a", "b")))
    content["build"] = lambda shape, values: content["Net"](shape, 7)
    with pytest.raises(ArtifactError, match=f"(?s)does not fit own: .*size mismatch.*{way_out}"):
        artifact.load(tmp_path)
    file.unlink()
    with pytest.raises(
        ArtifactError, match=f"model g00000002/new cannot be built: unknown.*'own'.*{way_out}"
    ):
        artifact.load(tmp_path)


def test_a_description_of_tomorrow_is_read_unless_it_says_that_it_cannot_be(tmp_path: Path) -> None:
    artifact.save(tmp_path, card(), build("convnet", card().shape))
    path = tmp_path / "model.json"
    written = json.loads(path.read_text())
    assert written["version"] == 1
    path.write_text(json.dumps(written | {"trainedOn": "four GPUs"}))
    assert artifact.load_card(tmp_path) == card()
    del written["version"]  # as before there were versions
    path.write_text(json.dumps(written))
    assert artifact.load_card(tmp_path) == card()
    path.write_text(json.dumps(written | {"version": 2}))
    with pytest.raises(ArtifactError, match="is of version 2, and this image reads up to 1"):
        artifact.load_card(tmp_path)


def test_tied_weights_are_kept_and_what_is_no_tensor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("convnet", card().shape)
    model.features[0][1].bias = model.features[0][1].weight  # type: ignore[index,union-attr]
    artifact.save(tmp_path, card(), model)
    found = artifact.load_weights(tmp_path)
    assert torch.equal(found["features.0.1.bias"], found["features.0.1.weight"])
    monkeypatch.setattr(type(model), "get_extra_state", lambda _: {"a": 1})
    with pytest.raises(ArtifactError, match="_extra_state of ConvNet cannot be kept: only tensors are"):
        artifact.save(tmp_path, card(), model)
