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


@cache
def raised_errors() -> frozenset[str]:
    """Return the classes of truthloop/errors.py that some function or the layer raises."""
    errors = ast.parse((PACKAGE / "errors.py").read_text())
    declared = {node.name for node in errors.body if isinstance(node, ast.ClassDef)}
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "functions").glob("*/app.py")]
    raised: set[str] = set()
    for path in sources:
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


def test_every_machine_speaks_jsonata() -> None:
    for path in FILES:
        assert yaml.safe_load(path.read_text())["QueryLanguage"] == "JSONata", path.name
