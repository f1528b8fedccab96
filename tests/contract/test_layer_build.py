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

LAYER = Path(__file__).resolve().parents[2] / "layers/common"
LIMIT = 2 * 1024 * 1024
PYTHON_313 = next((p for p in Path.home().glob(".pyenv/versions/3.13.*/bin/python3.13")), None)


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
    assert not any("__pycache__" in name or name.startswith("python/boto") for name in built)
    assert not any(name.endswith((".so", ".pyd")) for name in built), "the layer must be pure Python"
    assert files(build(LAYER, tmp_path)) == built


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
    for function in sorted((LAYER.parents[1] / "functions").iterdir()):
        if not (function / "app.py").is_file():
            continue
        paths = [str(artifacts / "python"), str(function)]
        code = f"import sys; sys.path[:0] = {paths!r}; import app; app.lambda_handler"
        done = subprocess.run(
            [python, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{function.name}: {done.stderr}"
