"""The layer is the same bytes from any place, holds no boto3, and stays small."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.contract.lambda_python import find_python

LAYER = Path(__file__).resolve().parents[2] / "layers/common"
LIMIT = 2 * 1024 * 1024
FUNCTIONS = sorted(path.parent for path in (LAYER.parents[1] / "functions").glob("*/app.py"))
PYTHON_313 = find_python("3.13")


def build(source: Path, target: Path) -> Path:
    shutil.copytree(source, target / "source", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        ["make", "build-CommonLayer", f"ARTIFACTS_DIR={target / 'artifacts'}", f"PYTHON={sys.executable}"],
        cwd=target / "source",
        check=True,
        timeout=240,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )
    return target / "artifacts"


def files(artifacts: Path) -> dict[str, str]:
    found = (path for path in sorted(artifacts.rglob("*")) if path.is_file())
    return {str(p.relative_to(artifacts)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(LAYER, tmp_path_factory.mktemp("one"))


def test_the_layer_is_whole_and_the_same_from_another_place(artifacts: Path, tmp_path: Path) -> None:
    # Given: SAM copies the layer's directory elsewhere before it calls make
    built = files(artifacts)
    # Then
    assert "python/truthloop/wiring.py" in built
    assert "python/aws_lambda_powertools/__init__.py" in built
    assert not any(name.startswith("python/boto") for name in built)
    assert not any(name.endswith((".so", ".pyd")) for name in built), "the layer must be pure Python"
    compiled = {name for name in built if name.endswith(".pyc")}
    assert compiled == {cached(name) for name in built if name.endswith(".py")} if PYTHON_313 else set()
    assert files(build(artifacts.parent / "source", tmp_path)) == built


def test_the_layer_stays_small(artifacts: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(artifacts.rglob("*")):
            archive.write(path, path.relative_to(artifacts))
    assert len(content.getvalue()) < LIMIT


@pytest.mark.parametrize(
    "python",
    [
        sys.executable,
        pytest.param(
            PYTHON_313, marks=pytest.mark.skipif(PYTHON_313 is None, reason="this machine has no Python 3.13")
        ),
    ],
)
def test_every_function_imports_with_the_layer_alone(artifacts: Path, python: str) -> None:
    """Handlers must import without boto3's clients or settings: both are made when first asked for."""
    loaded = [imported(artifacts, function, python) for function in FUNCTIONS]
    assert all(any(name.startswith("truthloop.steps.") for name in names) for names in loaded)


@pytest.mark.skipif(PYTHON_313 is None, reason="this machine has no Python 3.13, and others import more")
def test_nothing_in_the_layer_is_unused(artifacts: Path) -> None:
    """Third-party packages (folders) that no function loads cost every cold start its download."""
    assert PYTHON_313 is not None
    python = artifacts / "python"
    used = {name for function in FUNCTIONS for name in imported(artifacts, function, PYTHON_313)}
    packages = {path.parent.relative_to(python) for path in python.rglob("*.py")} - {Path()}
    unused = {str(path) for path in packages if ".".join(path.parts) not in used}
    # An adapter is loaded when its port is first asked for; a formatter when somebody names it.
    assert unused <= {"truthloop/aws", "aws_lambda_powertools/logging/formatters"}


def imported(artifacts: Path, function: Path, python: str) -> set[str]:
    """Return the modules that a function's import loads, with nothing but the layer and the library."""
    paths = [str(artifacts / "python"), str(function)]
    code = f"import sys; sys.path[:0] = {paths!r}; import app; app.lambda_handler; print(*sys.modules)"
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{function.name}: {done.stderr}"
    return set(done.stdout.split())


def cached(source: str) -> str:
    """Return where Python 3.13 keeps the compiled form of a source file."""
    path = Path(source)
    return str(path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc")
