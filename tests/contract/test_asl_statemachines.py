"""The state machines that the template deploys are sound, with the substitutions that it gives them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.yaml_helper import yaml_parse

from tests.contract.asl_lint import lint

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "statemachines").glob("*.asl.yaml"))
PACKAGE = ROOT / "layers/common/truthloop"


def module_file(name: str) -> Path | None:
    """Return the file of a module of the layer, None if the name is no module of it."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def reached(path: Path) -> set[Path]:
    """Return a file and every file of the layer that it imports, however indirectly."""
    seen: set[Path] = set()
    ahead = [path]
    while ahead:
        current = ahead.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in ast.walk(ast.parse(current.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            ahead += [file for name in names if name.startswith("truthloop") and (file := module_file(name))]
    return seen


@cache
def raised_errors(function: str | None = None) -> frozenset[str]:
    """Return the classes of truthloop/errors.py that a function, or any, raises."""
    errors = ast.parse((PACKAGE / "errors.py").read_text())
    declared = {node.name for node in errors.body if isinstance(node, ast.ClassDef)}
    handlers = (
        [ROOT / "functions" / function / "app.py"] if function else (ROOT / "functions").glob("*/app.py")
    )
    raised: set[str] = set()
    for path in {file for handler in handlers for file in reached(handler)}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised |= {name.id for name in ast.walk(node.exc) if isinstance(name, ast.Name)}
                raised |= {name.attr for name in ast.walk(node.exc) if isinstance(name, ast.Attribute)}
    return frozenset(declared & raised)


@cache
def template() -> dict[str, Any]:
    return dict(yaml_parse((ROOT / "template.yaml").read_text()))


def substitutions(path: Path) -> dict[str, object]:
    """Return the substitutions of the machine that uses a file; parameters have their default value."""
    parameters = template()["Parameters"]
    for resource in template()["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Serverless::StateMachine" and path.name in str(
            properties.get("DefinitionUri")
        ):
            given = properties.get("DefinitionSubstitutions", {})
            return {
                name: parameters.get(value["Ref"], {}).get("Default", "a-reference")
                if isinstance(value, dict) and "Ref" in value
                else "arn:aws:service:us-east-1:123456789012:thing"
                for name, value in given.items()
            }
    raise AssertionError(f"no state machine of template.yaml has the definition {path.name}")


def test_both_machines_exist() -> None:
    assert {"retrain.asl.yaml", "deploy.asl.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_state_machine_is_sound(path: Path) -> None:
    definition = yaml.safe_load(path.read_text())
    findings = lint(definition, substitutions=substitutions(path), error_names=set(raised_errors()))
    assert [str(finding) for finding in findings] == []


def function_folder(definition: dict[str, Any], path: Path, state: str) -> str:
    """Return the folder of the function that a state invokes."""
    name = definition["States"][state]["Arguments"]["FunctionName"].strip("${}")
    for resource in template()["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Serverless::StateMachine" and path.name in str(
            properties["DefinitionUri"]
        ):
            target = properties["DefinitionSubstitutions"][name]["Fn::GetAtt"]
            logical_id = target[0] if isinstance(target, list) else target.split(".")[0]
            return Path(template()["Resources"][logical_id]["Properties"]["CodeUri"]).name
    raise AssertionError(f"{path.name} has no resource")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_function_raises_what_its_state_names(path: Path) -> None:
    definition = yaml.safe_load(path.read_text())
    wrong = []
    for name, state in definition["States"].items():
        if state.get("Resource") != "arn:aws:states:::lambda:invoke":
            continue
        function = function_folder(definition, path, name)
        for rule in [*state.get("Retry", []), *state.get("Catch", [])]:
            own = [error for error in rule["ErrorEquals"] if "." not in error]
            wrong += [
                f"{name}: {function} never raises {error}"
                for error in own
                if error not in raised_errors(function)
            ]
    assert wrong == []


def test_every_machine_speaks_jsonata() -> None:
    for path in FILES:
        assert yaml.safe_load(path.read_text())["QueryLanguage"] == "JSONata", path.name
