# ruff: noqa: E501 - a template reads better in one line
"""``local.deploy`` and ``python -m local`` with a stack: what they refuse, and what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from local.deploy import DeployError, build_layer, deploy, tree_zip
from local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = Path(__file__).parent / "fixtures" / "sam_app"


@pytest.fixture
def stack(server: Any) -> Iterator[str]:
    name = f"d-{uuid.uuid4().hex[:10]}"
    yield name
    server.client("cloudformation").delete_stack(StackName=name)


def write(folder: Path, text: str) -> Path:
    path = folder / "template.yaml"
    path.write_text(text)
    return path


def parameters(server: Any, stack: str) -> dict[str, str]:
    (found,) = server.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {item["ParameterKey"]: item["ParameterValue"] for item in found["Parameters"]}


def test_an_update_keeps_parameters_that_are_not_named(server: Any, stack: str, tmp_path: Path) -> None:
    # Given
    template = write(
        tmp_path,
        """
        Parameters: {One: {Type: Number, Default: 1}, Two: {Type: Number, Default: 2}}
        Resources: {Queue: {Type: AWS::SQS::Queue, Properties: {DelaySeconds: !Ref One}}}
        Outputs: {Url: {Value: !Ref Queue}}
        """,
    )
    first = deploy(server, template, stack, {"One": "5", "Two": "6"})

    # When one is changed, and when nothing is
    second = deploy(server, template, stack, {"One": "7"})
    third = deploy(server, template, stack)

    # Then
    assert first == second == third
    assert parameters(server, stack) == {"One": "7", "Two": "6"}


def test_a_stack_that_was_rolled_back_is_made_anew(server: Any, stack: str, tmp_path: Path) -> None:
    bad = "Resources: {P: {Type: AWS::SSM::Parameter, Properties: {Type: Odd, Value: v}}}"
    with pytest.raises(DeployError) as failed:
        deploy(server, write(tmp_path, bad), stack)
    lines = str(failed.value).splitlines()
    assert lines[0] == f"stack {stack} is ROLLBACK_COMPLETE:"
    assert lines[1].startswith("  P (AWS::SSM::Parameter): ")

    deploy(server, write(tmp_path, bad.replace("Odd", "String")), stack)

    (found,) = server.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert found["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (
            "{Type: AWS::Serverless::Function, Properties: {CodeUri: code}}",
            "R: the build method None is not supported here; a function needs `Metadata: {SkipBuild: true}`",
        ),
        (
            "{Type: AWS::Serverless::Function, Metadata: {BuildMethod: python3.13}, Properties: {CodeUri: code}}",
            "R: the build method 'python3.13' is not supported here",
        ),
        (
            "{Type: AWS::Serverless::Function, Metadata: {SkipBuild: true}, Properties: {CodeUri: gone}}",
            "gone is not a folder",
        ),
        (
            "{Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: code}}",
            "a layer needs `Metadata: {BuildMethod: makefile}`",
        ),
        (
            "{Type: AWS::Serverless::LayerVersion, Metadata: {BuildMethod: makefile}, Properties: {ContentUri: code}}",
            "Makefile is missing",
        ),
        (
            "{Type: AWS::Serverless::LayerVersion, Metadata: {BuildMethod: makefile, WorkingDirectory: x},"
            " Properties: {ContentUri: code}}",
            "R: the metadata WorkingDirectory is not supported here",
        ),
        (
            "{Type: AWS::Serverless::StateMachine, Properties: {DefinitionUri: gone.yaml}}",
            "gone.yaml does not exist",
        ),
        (
            "{Type: AWS::Serverless::Application, Properties: {Location: gone.yaml}}",
            "gone.yaml does not exist",
        ),
        ("{Type: AWS::Nothing::AtAll}", "Unrecognized resource types: [AWS::Nothing::AtAll]"),
    ],
)
def test_what_cannot_be_deployed(
    server: Any, stack: str, tmp_path: Path, resource: str, message: str
) -> None:
    (tmp_path / "code").mkdir()
    template = write(tmp_path, f"Transform: AWS::Serverless-2016-10-31\nResources:\n  R: {resource}\n")

    with pytest.raises(DeployError) as failed:
        deploy(server, template, stack)

    assert message in str(failed.value)
    stacks = server.client("cloudformation").list_stacks()["StackSummaries"]
    assert stack not in [item["StackName"] for item in stacks if item["StackStatus"] != "DELETE_COMPLETE"]


def test_a_template_that_is_none(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="does not exist"):
        deploy(server, tmp_path / "gone.yaml", "any")
    with pytest.raises(DeployError, match="is not a template"):
        deploy(server, write(tmp_path, "- 1"), "any")
    with pytest.raises(DeployError, match=r"template\.yaml: .*not well-formed"):
        deploy(server, write(tmp_path, "a: ["), "any")


def test_zips_are_reproducible(tmp_path: Path) -> None:
    # Given two folders of the same content, made in another order at another time
    for name, files in (("one", ("b.py", "a/c.py")), ("two", ("a/c.py", "b.py"))):
        for number, file in enumerate(files):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
            os.utime(path, (number, number))
    (tmp_path / "one" / "b.py").chmod(0o700)
    (tmp_path / "two" / "b.py").chmod(0o700)

    # Then
    one, two = tree_zip(tmp_path / "one"), tree_zip(tmp_path / "two")
    assert one == two
    with zipfile.ZipFile(BytesIO(one)) as archive:
        assert archive.namelist() == ["b.py", "a/c.py"]
        # Lambda's own user can read it.
        assert oct(archive.getinfo("b.py").external_attr >> 16) == "0o100744"


def test_a_layer_is_built_once_per_content(tmp_path: Path) -> None:
    # Given
    folder = tmp_path / "layer"
    shutil.copytree(APPLICATION / "layer", folder)
    cache = tmp_path / "cache"

    # When
    first = build_layer(folder, "ToolkitLayer", cache)
    again = build_layer(folder, "ToolkitLayer", cache)
    (folder / "toolkit" / "__init__.py").write_text("changed = True\n")
    changed = build_layer(folder, "ToolkitLayer", cache)

    # Then
    assert first == again != changed
    assert (first / "python" / "toolkit" / "__init__.py").read_text().startswith('"""')
    assert (changed / "python" / "toolkit" / "__init__.py").read_text() == "changed = True\n"
    assert not list(cache.glob("building-*"))


def test_a_layer_whose_build_fails(tmp_path: Path) -> None:
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "Makefile").write_text("build-Layer:\n\t@echo no such thing >&2; exit 3\n")

    with pytest.raises(DeployError, match=r"make build-Layer failed in .* with 2:\n.*no such thing"):
        build_layer(folder, "Layer", tmp_path / "cache")

    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_python_m_local_deploys_the_repository(tmp_path: Path) -> None:
    """``python -m local`` says ``ready`` once the stack is there, and its message when it cannot be."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "local", "--port", "0", "--parameter", "Nonsense=1"]

    refused = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert refused.returncode == 2
    assert "'0' is not a port number" in refused.stderr

    command[4] = str(free_port())
    refused = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )

    assert refused.returncode == 1
    assert "ready" not in refused.stdout
    assert "error: stack truthloop: Parameters: [Nonsense] do not exist in the template" in refused.stderr
    assert not list(tmp_path.glob("truthloop-local-*"))
