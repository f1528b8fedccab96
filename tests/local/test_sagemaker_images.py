"""Dockerfiles read as far as a process needs them, and deployment policies: no server is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.core.exceptions import ServiceException

from local.sagemaker.deployments import policy_of
from local.sagemaker.images import ImageError, ImageStore, parse_dockerfile, repository_name


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv("TRUTHLOOP_IMAGES", str(tmp_path / "context"))
    (tmp_path / "context/thing").mkdir(parents=True)
    return ImageStore(tmp_path / "images")


def write(store: ImageStore, tmp_path: Path, text: str) -> Path:
    path = tmp_path / "context/thing/Dockerfile"
    path.write_text(text)
    return path


def test_the_last_stage_counts(store: ImageStore, tmp_path: Path) -> None:
    path = write(
        store,
        tmp_path,
        """# comment
ARG BASE=python
FROM ${BASE}:3 AS build
ENV A=1 B="two words" C=a\\ b
WORKDIR /opt
COPY . /src
ENTRYPOINT ["one"]
FROM build AS middle
WORKDIR program
ENV D old style value
ENV E=$A-${B}-${NONE:-default}
FROM middle
RUN echo \\
    several lines
ENTRYPOINT ["python3", "-m", "thing"]
CMD ["serve"]
""",
    )
    stage = parse_dockerfile(path)
    assert stage.entrypoint == ("python3", "-m", "thing")
    assert stage.command == ("serve",)
    assert stage.workdir == "/opt/program"
    assert dict(stage.environment) == {
        "A": "1",
        "B": "two words",
        "C": "a b",
        "D": "old style value",
        "E": "1-two words-default",
    }


def test_copies_are_laid_out_and_paths_mapped(store: ImageStore, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "a/deep").mkdir(parents=True)
    (context / "a/deep/x.py").write_text("x")
    (context / "b").mkdir()
    (context / "b/y.py").write_text("y")
    (context / "one.txt").write_text("1")
    write(
        store,
        tmp_path,
        """FROM scratch
WORKDIR /opt/program
COPY --chown=1:1 a /opt/program/package
COPY b package/
COPY ["one.txt", "/etc/"]
COPY *.txt ./
ENTRYPOINT ["python", "/opt/program/package/deep/x.py", "--config", "/etc/one.txt"]
""",
    )
    image = store.resolve("1.dkr.ecr.eu-west-1.amazonaws.com/truthloop-thing@sha256:abc")
    assert (image.cwd / "package/deep/x.py").read_text() == "x"
    assert (image.cwd / "package/y.py").read_text() == "y"
    assert (image.cwd / "one.txt").read_text() == "1"
    base = tmp_path / "ml"
    argv = image.argv(None, ["train", "/opt/ml/model", "s3://opt/ml/x"], base)
    assert argv[0] == sys.executable
    assert Path(argv[1]).read_text() == "x"
    assert Path(argv[3]).read_text() == "1"
    assert argv[4:] == ["train", f"{base}/model", "s3://opt/ml/x"]
    assert image.argv(["python3", "-V"], None, base) == [sys.executable, "-V"]
    mapped = image.localise("/opt/program/package:/opt/ml/code:/usr/nothing", base)
    assert mapped.split(":")[1:] == [f"{base}/code", "/usr/nothing"]
    assert mapped.startswith(str(image.rootfs))


def test_a_shell_form_runs_in_a_shell(store: ImageStore, tmp_path: Path) -> None:
    write(store, tmp_path, "FROM scratch\nENTRYPOINT echo hello\n")
    assert store.resolve("thing").argv(None, None, tmp_path) == ["/bin/sh", "-c", "echo hello"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no FROM"),
        ("COPY a b\n", "has COPY before FROM"),
        ("FROM scratch\nENTRIPOINT []\n", r"thing/Dockerfile:2 has an unknown instruction 'ENTRIPOINT'"),
        ('FROM scratch\nENTRYPOINT ["a",]\n', "is no JSON array"),
        ("FROM scratch\nCMD [1]\n", "must be an array of strings"),
        ('FROM scratch\nENV A="open\n', "No closing quotation"),
        ("FROM scratch\nCOPY a\n", "needs a source and a destination"),
        ("FROM scratch\nCOPY nothing /there\n", "copies 'nothing', which does not exist"),
        ("FROM scratch\n", "there is nothing to run"),
        ('FROM scratch\nENTRYPOINT ["nobodys-program"]\n', "executable file not found"),
        (
            "FROM truthloop-nothing\nCMD a\n",
            "Dockerfile:1 starts from truthloop-nothing, which should be",
        ),
        ("ARG BASE=truthloop-thing\nFROM ${BASE}\nCMD a\n", "starts from truthloop-thing, so from itself"),
        ("ARG BASE\nFROM ${BASE}\nCMD a\n", "thing/Dockerfile:2 starts from an ARG without a value"),
    ],
)
def test_what_is_no_image_says_why(store: ImageStore, tmp_path: Path, text: str, message: str) -> None:
    write(store, tmp_path, text)
    with pytest.raises(ImageError, match=message):
        store.resolve("thing:latest").argv(None, None, tmp_path)


def test_a_changed_dockerfile_is_read_again(store: ImageStore, tmp_path: Path) -> None:
    path = write(store, tmp_path, "FROM scratch\nCMD one\n")
    assert store.resolve("thing").command[-1] == "one"
    path.write_text("FROM scratch\nCMD two\n")
    os.utime(path, ns=(1, 1))
    assert store.resolve("thing").command[-1] == "two"


def write_base(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "context/base"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(text)
    return folder / "Dockerfile"


def test_an_image_has_what_its_base_has(store: ImageStore, tmp_path: Path) -> None:
    base = write_base(
        tmp_path,
        "FROM scratch AS build\nENV LOST=1\nFROM scratch\nENV KEPT=base OVER=base\nWORKDIR /opt\n"
        'COPY base/Dockerfile /etc/made-from\nENTRYPOINT ["python"]\nCMD ["-V"]\n',
    )
    path = write(
        store,
        tmp_path,
        "ARG BASE=registry.example/team/truthloop-base:v1\nFROM ${BASE} AS build\nENV BUILT=1\n"
        "FROM ${BASE}\nENV OVER=${KEPT}d\nWORKDIR program\nCOPY thing thing\n",
    )
    image = store.resolve("truthloop-thing")
    assert image.environment == {"KEPT": "base", "OVER": "based"}
    assert (image.entrypoint, image.command, image.workdir) == (("python",), ("-V",), "/opt/program")
    assert (image.rootfs / "etc/made-from").read_text() == base.read_text()
    assert (image.cwd / "thing/Dockerfile").read_text() == path.read_text()


def test_images_that_start_from_each_other_are_refused(store: ImageStore, tmp_path: Path) -> None:
    write_base(tmp_path, "FROM truthloop-thing\n")
    write(store, tmp_path, "FROM truthloop-base\nCMD a\n")
    with pytest.raises(ImageError, match="base/Dockerfile:1 starts from truthloop-thing, so from itself"):
        store.resolve("thing")


def test_a_changed_base_is_read_again(store: ImageStore, tmp_path: Path) -> None:
    write(store, tmp_path, "FROM truthloop-base\nCMD one\n")
    base = write_base(tmp_path, "FROM scratch\nENV A=1\n")
    assert store.resolve("thing").environment == {"A": "1"}
    base.write_text("FROM scratch\nENV A=2\n")
    os.utime(base, ns=(1, 1))
    assert store.resolve("thing").environment == {"A": "2"}
    base.unlink()
    with pytest.raises(ImageError, match="which should be base/Dockerfile beside it"):
        store.resolve("thing")


def test_repository_names() -> None:
    assert repository_name("1.dkr.ecr.r.amazonaws.com:443/team/truthloop-a:v1") == "truthloop-a"
    assert repository_name("truthloop-a@sha256:00") == "truthloop-a"


def routing(kind: str, **more: Any) -> dict[str, Any]:
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": kind, **more}}}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (None, (1.0,)),
        (routing("ALL_AT_ONCE"), (1.0,)),
        (routing("CANARY", CanarySize=percent(25)), (0.25, 1.0)),
        (routing("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}), (0.25, 1.0)),
        (routing("LINEAR", LinearStepSize=percent(40)), (0.4, 0.8, 1.0)),
    ],
)
def test_traffic_moves_in_steps(config: dict[str, Any] | None, steps: tuple[float, ...]) -> None:
    policy = policy_of(config, {"ProductionVariants": [{"InitialInstanceCount": 4}]})
    assert policy.steps == pytest.approx(steps)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (routing("CANARY", CanarySize=percent(60)), "at most 50%"),
        (routing("LINEAR", LinearStepSize=percent(5)), "at least 10%"),
        (routing("SUDDEN"), "must be ALL_AT_ONCE, CANARY or LINEAR"),
    ],
)
def test_sizes_are_checked(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceException, match=message):
        policy_of(config, {"ProductionVariants": [{"InitialInstanceCount": 4}]})
