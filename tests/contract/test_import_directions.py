"""Functions → truthloop; rules import nothing of AWS; only the wiring knows both sides."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/common/truthloop"
AWS = {"boto3", "botocore", "aws_lambda_powertools", "truthloop.aws"}


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def touches(path: Path, modules: set[str]) -> set[str]:
    return {
        name
        for name in imports(path)
        for module in modules
        if name == module or name.startswith(module + ".")
    }


ROOMS = {
    "uploads": {"versions"},
    "versions": set(),
    "retraining": {"versions", "instances"},
    "instances": set(),
    "serving": {"instances"},
}
"""The rooms of the rules, and which others each may look into."""
ON_TOP = ("wiring.py", "telemetry.py")
RULES = sorted(p for p in PACKAGE.glob("*.py") if p.name not in ON_TOP) + sorted(
    path for room in ROOMS for path in (PACKAGE / room).glob("*.py")
)
STEPS = sorted((PACKAGE / "steps").glob("*.py"))
ADAPTERS = sorted((PACKAGE / "aws").glob("*.py"))
FUNCTIONS = sorted(ROOT.glob("functions/*/app.py"))


@pytest.mark.parametrize("path", RULES + STEPS, ids=lambda p: p.stem)
def test_rules_and_steps_import_nothing_of_aws(path: Path) -> None:
    assert touches(path, AWS | {"truthloop.wiring", "truthloop.telemetry"}) == set()


@pytest.mark.parametrize("path", RULES + ADAPTERS, ids=lambda p: p.stem)
def test_nothing_imports_upward(path: Path) -> None:
    assert touches(path, {"truthloop.steps", "truthloop.wiring", "truthloop.telemetry"}) == set()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_look_only_into_those_below(room: str) -> None:
    others = {f"truthloop.{other}" for other in ROOMS.keys() - ROOMS[room] - {room}}
    files = list((PACKAGE / room).glob("*.py"))
    assert len(files) > 1
    assert {path.name: found for path in files if (found := touches(path, others))} == {}


def test_every_folder_of_the_package_is_known_here() -> None:
    assert {p.parent.name for p in PACKAGE.glob("*/*.py")} == {*ROOMS, "steps", "aws"}


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda p: p.parent.name)
def test_functions_import_the_package_alone_and_fit_a_screen(path: Path) -> None:
    allowed = sys.stdlib_module_names | {"truthloop", "__future__"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed
    assert touches(path, {"truthloop.aws"}) == set()
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", RULES + STEPS + ADAPTERS + FUNCTIONS, ids=lambda p: p.stem)
def test_production_code_does_not_know_that_it_may_run_locally(path: Path) -> None:
    assert touches(path, {"local", "demo", "moto", "tests", "containers"}) == set()
    text = path.read_text()
    assert "localhost" not in text
    assert "AWS_ENDPOINT_URL" not in text


def test_every_function_has_its_step() -> None:
    assert {p.parent.name for p in FUNCTIONS} <= {p.stem for p in STEPS}
    assert len(FUNCTIONS) == 12


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """Return the files of packages below `root` by the module names that they are imported by."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in (root / package).rglob("*.py")
    }


def without_packages(names: set[str]) -> set[str]:
    """Leave out the package where a module of it is meant: `from package import module` names both."""
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Return what is left of a graph when whatever leads to no circle is taken away, again and again."""
    left = dict(edges)
    while ends := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ends:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize(
    ("root", "packages"),
    [
        (".", ("local", "demo", "cli")),
        ("containers", sorted(path.parent.name for path in ROOT.glob("containers/*/__init__.py"))),
        ("layers/common", ("truthloop",)),
    ],
    ids=["local, demo and cli", "containers", "truthloop"],
)
def test_no_module_imports_itself_by_way_of_others(root: str, packages: tuple[str, ...]) -> None:
    """Not for types alone either, nor within a function: such an import hides a circle, it opens none."""
    known = modules(ROOT / root, *packages)
    assert len(known) > 10
    edges = {name: without_packages(imports(path) & known.keys()) - {name} for name, path in known.items()}
    assert circles(edges) == []


def test_a_circle_is_found_and_what_leads_to_it_is_named_too() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"d"}}) == ["a", "b", "c"]
