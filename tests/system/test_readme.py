"""The README's commands, run as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def block(heading: str) -> str:
    """Return the first bash block below a heading of the README."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n", 1)[1]
    found = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="module")
def shown(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the whole block against the stack, in the repository as a user would, and return what it shows."""
    commands = block("Try it by hand")
    assert "http://localhost:4566" in commands
    # Other things may use the default port of this machine, and build/ belongs to the demo.
    workplace = tmp_path_factory.mktemp("readme")
    script = commands.replace("http://localhost:4566", stack.endpoint)
    for name in ("events", ".venv"):
        (workplace / name).symlink_to(ROOT / name)
    environment = {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "HOME": str(workplace)}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_run_by_hand_succeeds(shown: str) -> None:
    assert '"outcome":"SUCCEEDED"' in shown.replace(" ", "")


def test_the_endpoint_answers_with_label_and_score(shown: str) -> None:
    answer = next(line for line in shown.splitlines() if line.startswith('{"label"'))
    assert re.fullmatch(r"\d", json.loads(answer)["label"])
    assert 0 <= json.loads(answer)["score"] <= 1


def test_the_decision_log_tells_of_the_run_and_of_the_correction(shown: str) -> None:
    assert "SUCCEEDED" in shown
    assert "REFUSED" in shown
    assert "MINIMUM_NEW_LABELS" in shown


def test_logs_are_json_lines_of_the_function(shown: str) -> None:
    assert '"service":"retrain"' in shown.replace(" ", "")


@pytest.mark.parametrize("target", ["demo", "test", "build", "deploy", "install", "local"])
def test_every_make_target_that_the_readme_names_exists(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_link_and_path_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"`([a-z/]+/)`", text.split("## Where things are", 1)[1])
    assert len(links) > 5
    for path in [*links, *paths]:
        assert (ROOT / path).exists(), path
