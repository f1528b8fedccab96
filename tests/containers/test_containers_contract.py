"""SageMaker's contract: paths, parameters, failure file, exit codes."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from pathlib import Path
from random import Random

import pytest

from common import contract, logs
from common.contract import Parameters, Paths
from common.errors import ArtifactError, ContractError


def test_every_path_derives_from_the_base_directory(tmp_path: Path) -> None:
    assert Paths.from_environment({}).channel("train") == Path("/opt/ml/input/data/train")
    # Only there SageMaker's volume is; what else is in /opt/ml lies on the container's small disk.
    assert Paths.from_environment({}).scratch.parent == Path("/tmp")
    paths = Paths.from_environment({"ML_BASE_DIR": str(tmp_path)})
    for path in (
        paths.model,
        paths.scratch,
        paths.failure,
        paths.message,
        paths.config("hyperparameters"),
        paths.channel("train"),
        paths.processing_input("base"),
        paths.processing_output("report"),
    ):
        assert tmp_path in path.parents


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", "many", "must be a number"),
        ("epochs", "0", "between 1 and 100"),
        ("epochs", "nan", "between 1 and 100"),
        ("epochs", "1.5", "whole number"),
        ("epochs", "", "missing or empty"),
    ],
)
def test_a_bad_parameter_is_refused_with_its_name(name: str, value: str, message: str) -> None:
    with pytest.raises(ContractError, match=f"hyperparameter {name}.*{message}"):
        Parameters({name: value}, "hyperparameter").integer(name, None, 1, 100)


def test_a_choice_and_a_misspelt_name_are_refused() -> None:
    parameters = Parameters({"candidate": "old", "epcohs": "3", "sagemaker_region": "x"}, "hyperparameter")
    with pytest.raises(ContractError, match="must be one of new, newer"):
        parameters.choice("candidate", ("new", "newer"))
    with pytest.raises(ContractError, match="unknown hyperparameter epcohs: known are candidate"):
        parameters.refuse_unknown()


def test_hyperparameters_lose_the_quotes_that_some_tools_add(tmp_path: Path) -> None:
    path = tmp_path / "input/config/hyperparameters.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"candidate": '"old"', "epochs": "3"}))
    assert contract.hyperparameters(Paths(tmp_path)).values == {"candidate": "old", "epochs": "3"}


def test_one_hyperparameter_holds_others(tmp_path: Path) -> None:
    path = tmp_path / "input/config/hyperparameters.json"
    path.parent.mkdir(parents=True)
    for more, found in (("", {}), ("patience=5, model_width=48,", {"patience": "5", "model_width": "48"})):
        path.write_text(json.dumps({"epochs": "3", "more": more}))
        assert contract.hyperparameters(Paths(tmp_path)).values == {"epochs": "3", **found}
    for more, said in (
        ("patience", "'patience' is no assignment"),
        ("epochs=4", "epochs is set already, to '3'"),
    ):
        path.write_text(json.dumps({"epochs": "3", "more": more}))
        with pytest.raises(ContractError, match=said):
            contract.hyperparameters(Paths(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "one JSON object, not a list")])
def test_damaged_hyperparameters_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "input/config/hyperparameters.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ContractError, match=message):
        contract.hyperparameters(Paths(tmp_path))


def test_the_resource_configuration_names_the_hosts(tmp_path: Path) -> None:
    assert contract.resources(Paths(tmp_path)).hosts == ("algo-1",)
    path = tmp_path / "input/config/resourceconfig.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}))
    found = contract.resources(Paths(tmp_path))
    assert (found.current_host, found.hosts) == ("algo-2", ("algo-1", "algo-2"))


@pytest.fixture
def keep_sigterm() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("keep_sigterm")
def test_the_boundary_tells_the_reason_and_tells_bad_input_from_our_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_BASE_DIR", str(tmp_path))

    def bad_input(_: Paths) -> None:
        raise ContractError("epochs is missing")

    def bug(_: Paths) -> None:
        raise ZeroDivisionError("x" * 5000)

    assert contract.run(lambda _: None) == 0
    assert not (tmp_path / "output/failure").exists()
    assert contract.run(bad_input) == 2
    assert (tmp_path / "output/failure").read_text() == "ContractError: epochs is missing"
    assert (tmp_path / "output/message").read_text() == "ContractError: epochs is missing"
    assert contract.run(bug) == 1
    text = (tmp_path / "output/failure").read_text()
    assert text.startswith("ZeroDivisionError: xxx")
    assert len(text) == 1024


@pytest.mark.usefixtures("keep_sigterm")
def test_of_several_processes_the_first_to_fail_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_BASE_DIR", str(tmp_path))

    def fail(reason: str) -> None:
        raise ContractError(reason)

    assert contract.run(lambda _: fail("an earlier run's")) == 2
    # What a process finds and its launcher then reports, who knows only that one has ended
    assert contract.run(lambda _: fail("the batch is too small"), first=False) == 2
    assert (tmp_path / "output/failure").read_text() == "ContractError: an earlier run's"

    def launch(_: Paths) -> None:
        assert contract.run(lambda _: fail("the batch is too small"), first=False) == 2
        fail("rank 1 ended with code 2")

    assert contract.run(launch) == 2
    for name in ("failure", "message"):
        assert (tmp_path / "output" / name).read_text() == "ContractError: the batch is too small"


@pytest.mark.usefixtures("keep_sigterm")
def test_a_failure_file_that_cannot_be_written_does_not_hide_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_BASE_DIR", str(tmp_path))
    (tmp_path / "output").write_text("a file where a directory belongs")

    def bad_input(_: Paths) -> None:
        raise ContractError("epochs is missing")

    assert contract.run(bad_input) == 2
    assert "cannot write" in capsys.readouterr().err


def _archive(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def test_a_model_archive_is_found_at_any_depth_and_never_writes_outside(tmp_path: Path) -> None:
    channel = tmp_path / "champion"
    assert contract.extract_model(channel, tmp_path / "none") is None
    _archive(channel / "runs/g1/models/job/output/model.tar.gz", "model.json")
    assert contract.extract_model(channel, tmp_path / "good") == tmp_path / "good"
    assert (tmp_path / "good/model.json").exists()

    _archive(channel / "other/model.tar.gz", "model.json")
    with pytest.raises(ArtifactError, match="holds 2 model"):
        contract.extract_model(channel, tmp_path / "two")

    _archive(tmp_path / "evil/model.tar.gz", "../outside.txt")
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        contract.extract_model(tmp_path / "evil", tmp_path / "target")
    assert not (tmp_path / "outside.txt").exists()

    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/model.tar.gz").write_bytes((channel / "other/model.tar.gz").read_bytes()[:30])
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        contract.extract_model(tmp_path / "cut", tmp_path / "target")


def test_a_model_archive_that_is_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    # What was unpacked of a damaged archive looks whole: only the checksum at its end tells.
    weights, source = tmp_path / "model.safetensors", tmp_path / "champion/model.tar.gz"
    weights.write_bytes(bytes(byte % 7 * 31 % 8 + 97 for byte in Random(1).randbytes(20_000)))
    source.parent.mkdir()
    with tarfile.open(source, "w:gz") as archive:
        archive.add(weights, weights.name)
    whole = source.read_bytes()
    for place in range(100, len(whole) - 100, 250):
        source.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match="cannot be unpacked"):
            contract.extract_model(source.parent, tmp_path / "target")


def test_a_log_line_is_json_and_the_metric_definitions_find_its_numbers() -> None:
    import logging
    import re

    record = logging.LogRecord("training", logging.INFO, __file__, 1, "epoch %d", (3,), None)
    record.fields = {"train_loss": 1.5e-05, "epoch": 3, "train_accuracy": -0.25}
    line = logs.JsonFormatter().format(record)
    assert json.loads(line)["message"] == "epoch 3"
    found = {metric["Name"]: re.findall(metric["Regex"], line) for metric in logs.METRIC_DEFINITIONS}
    assert found["train_loss"] == ["1.5e-05"]
    assert found["epoch"] == ["3"]
    assert found["train_accuracy"] == ["-0.25"]
