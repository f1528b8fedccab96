"""The kit that checks a model's file acquits the shipped models and convicts each broken one, in words."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.catalogue import names
from models.check import __main__ as command
from models.check.kit import inspect
from models.check.report import Finding
from models.interface import ModelShape
from tests.containers.conftest import CONTAINERS

SMALL = ModelShape(3, 8, 1)

GOOD = """
import torch
from torch import nn
from models.interface import Choice, Hyperparameter, Preferences, Transforms
from models.transforms import augment, normalise

class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(shape.channels, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
        )
        self.head = nn.Linear(128, shape.classes)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))

def build(shape, values):
    return Net(shape)
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Broken:
    """A change to the good file, the check that convicts it, and what it says."""

    check: str
    found: str
    advice: str
    old: str = ""
    new: str = ""
    more: str = ""

    @property
    def text(self) -> str:
        assert self.old in GOOD
        return (GOOD.replace(self.old, self.new) if self.old else GOOD) + "\n" + self.more


BROKEN = {
    name: Broken(**members)
    for name, members in tomllib.loads((Path(__file__).with_name("broken_models.toml")).read_text()).items()
}


class ConvictedError(Exception):
    """What the kit said of a promise that is broken."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def convicted(file: Path) -> Finding:
    """Return the first thing that does not hold; what comes after it would only take time."""

    def stop(finding: Finding) -> None:
        if finding.kept is False:
            raise ConvictedError(finding)

    with pytest.raises(ConvictedError) as caught:
        inspect(file, SMALL, tell=stop)
    return caught.value.finding


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_convicted_in_words(tmp_path: Path, broken: Broken) -> None:
    file = tmp_path / "broken.py"
    file.write_text(broken.text)
    finding = convicted(file)
    assert broken.check in finding.title, finding
    assert finding.broken
    assert re.search(broken.found, finding.broken.found), finding
    assert re.search(broken.advice, finding.broken.advice), finding
    assert finding.broken.expected.endswith(".")


def test_a_model_that_is_made_for_a_small_learning_rate_is_acquitted(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(GOOD + "\nPREFERENCES = Preferences(learning_rate=3e-4)\n")
    findings = inspect(file, SMALL)
    assert all(finding.kept for finding in findings), "\n".join(map(str, findings))
    assert any("slowly, from" in str(finding) for finding in findings)


def test_broken_files_tell_what_could_not_be_checked(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import nothing_of_the_kind\n")
    findings = inspect(file, SMALL)
    unknown = [finding for finding in findings if finding.kept is None]
    assert len(unknown) == len(findings) - 2
    assert "not checked, since this does not hold: The file can be imported" in str(unknown[0])


@pytest.mark.parametrize("name", ["My-model", "7nets", "_hidden"])
def test_a_file_needs_a_name_that_an_architecture_can_have(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text(GOOD)
    assert "is called" in str(convicted(file))


def test_the_name_of_another_architecture_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "convnet.py"
    file.write_text(GOOD)
    assert "There is an architecture convnet already" in str(convicted(file))


def test_helpers_weights_and_what_is_preferred_are_used(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    (tmp_path / "_parts.py").write_text("WIDTH = 8\n")
    file.write_text(
        GOOD.replace("nn.Conv2d(shape.channels, 8,", "nn.Conv2d(shape.channels, WIDTH,")
        + "\nfrom models.architectures._parts import WIDTH\n"
        + "PREFERENCES = Preferences(image_size=12, channels=1)\n"
    )
    findings = inspect(file, ModelShape(3, 224, 3))
    assert all(finding.kept for finding in findings), "\n".join(map(str, findings))
    assert "3 shapes, from 12 to 12 pixels" in "".join(map(str, findings))
    assert "there is no mine.safetensors" in "".join(map(str, findings))
    assert "mine" not in names()

    save_file({"features.0.weight": torch.zeros(8, 1, 3, 3)}, tmp_path / "mine.safetensors")
    finding = convicted(file)
    assert "mine.safetensors, the weights to start mine from, does not fit what mine.py builds" in str(
        finding
    )


@pytest.mark.parametrize("name", ["convnet", "convmixer"])
def test_the_shipped_models_keep_their_promises(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = CONTAINERS / f"models/architectures/{name}.py"
    assert command.main([str(file), "--shape", "10x16x1"]) == 0
    told = capsys.readouterr().out
    assert "✗" not in told
    assert re.search(r"convnet.py|convmixer.py: (\d+) of \1 hold", told)


def test_a_terminal_shows_what_is_being_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import nothing_of_the_kind\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert command.main([str(file)]) == 1
    shown = capsys.readouterr().out
    assert "… The file can be imported on its own\r\x1b[K✗ The file can be imported on its own\n" in shown
    assert re.search(r"1 of 24 hold, 1 do not, 22 could not be checked \(\d+ s\)\n$", shown)


def test_what_took_long_says_so() -> None:
    assert str(Finding("It learns", True, seconds=3.4)) == "✓ It learns (3 s)"
    assert str(Finding("It learns", True, seconds=0.4)) == "✓ It learns"


def test_hyperparameters_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    file = CONTAINERS / "models/architectures/convmixer.py"
    assert command.main([str(file), "--shape", "2x8x1", "--set", "width=9", "--set", "depth=1000"]) == 1
    assert "hyperparameter depth of convmixer is 1000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "nowhere.py is no file"),
        (["x.py", "--shape", "10x4x1"], "'10x4x1' is no shape: say classes x pixels x channels"),
        (["x.py", "--set", "width"], "'width': say name=value"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = command.main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_make_checks_a_file_wherever_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("print('hello')\n")
    run = subprocess.run(
        ["make", "-s", "check-model", f"FILE={file}", f"BIN={Path(sys.executable).parent}", "-o", "install"],
        cwd=CONTAINERS.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2, run.stderr  # make's own code for a command that failed
    assert (
        "✗ Importing it does nothing but define\n    found:    Importing the file prints hello." in run.stdout
    )
    assert "2 of 24 hold, 2 do not, 20 could not be checked" in run.stdout
