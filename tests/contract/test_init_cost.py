"""No function's cold start grows unseen: bench/init_cost.py holds it to bench/init_cost.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.init_cost import (  # fmt: skip
    BARE,
    BASELINE,
    CLIENTS,
    GROWTH_LIMIT,
    Bench,
    Cost,
    code_bytes,
    grown,
    growth_of_modules,
    loaded,
    measure,
    to_baseline,
    to_text,
)

# Counting takes seconds each, so here the two that between them load nearly all; ``make bench`` counts all.
COUNTED = ["ingest_ground_truth", "preflight_run"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def baseline() -> dict[str, Any]:
    return dict(json.loads(BASELINE.read_text()))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, baseline: dict[str, Any]) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("init-cost"))
    if bench.setting != baseline["setting"]:
        pytest.skip(f"the baseline is of {baseline['setting']} and this machine has {bench.setting}")
    return bench


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts instructions: install it")
def test_no_function_starts_with_more_instructions(bench: Bench, baseline: dict[str, Any]) -> None:
    found = measure(bench, COUNTED)
    assert grown(baseline, found) == []


@pytest.mark.parametrize("function", sorted(CLIENTS))
def test_no_function_loads_more_code(bench: Bench, baseline: dict[str, Any], function: str) -> None:
    modules = bench.look(function).modules
    before = code_bytes(loaded(baseline, function))
    assert code_bytes(modules) <= before * (1 + GROWTH_LIMIT), growth_of_modules(baseline, function, modules)


def test_the_benchmark_knows_every_function() -> None:
    assert set(CLIENTS) == {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}


def test_growth_names_the_function_and_its_modules() -> None:
    # Given: a baseline of two functions
    bare = Cost(100, 0, {})
    first = {BARE: bare, "a": Cost(1000, 0, {"x": 10, "y": 5}), "b": Cost(1000, 0, {"x": 10})}
    text = to_text(to_baseline({"python": "3.13"}, first))
    before = json.loads(text)
    assert grown(before, first) == []
    assert loaded(before, "a") == {"x": 10, "y": 5}
    # When: one has grown by 3 % and the other by 1 %
    now = {BARE: bare, "a": Cost(1030, 0, {"x": 14, "y": 5, "z": 7}), "b": Cost(1010, 0, {"x": 14})}
    # Then
    (sentence,) = grown(before, now)
    assert "a starts with 3.0 % more" in sentence
    assert "z (+7 bytes, new), x (+4 bytes)" in sentence
    # And: one that the baseline does not know is told apart
    assert "--update" in grown(before, {BARE: bare, "c": Cost(1, 0, {})})[0]
