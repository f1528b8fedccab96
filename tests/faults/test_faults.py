"""Every AWS call of the functions and the state machines, with every fault: nothing lost, nothing doubled.

The scenarios and invariants are in play.py, the faults and how calls are found in hook.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_grants import (
    ALSO_CHECKED,
    FUNCTIONS,
    IAM_PREFIX,
    LOG_DELIVERY,
    MACHINES,
    RENAMED,
    granted,
)  # fmt: skip
from tests.faults.play import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "dynamodb:TransactWriteItems": {"dynamodb:PutItem", "dynamodb:UpdateItem"},
    "lambda:Invoke": {"lambda:InvokeFunction"},
    "s3:HeadObject": {"s3:GetObject"},
}
"""What an operation is authorised by, where that is not its own name."""
BY_HAND = {"DecideRunFunction": {"sagemaker:DescribePipelineExecution"}}
"""Calls that only a person's invocation leads to: the machine decides when it knows how the run has ended."""
SAME = {"s3:GetObjectVersion": "s3:GetObject"}
"""One operation, with or without a version."""


@cache
def results() -> dict[str, Any]:
    """Play every scenario with every fault; the program forks, so it is a process without threads."""
    path = os.pathsep.join(str(ROOT / part) for part in ("", "layers/common", "containers"))
    command = [sys.executable, "-m", "tests.faults.play", *SCENARIOS]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return {(found := json.loads(line))["scenario"]: found for line in done.stdout.splitlines()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_fault_at_every_call_is_survived(name: str) -> None:
    found = results()[name]
    # Without a fault the scenario is what its name says, and breaks nothing.
    assert (found["came"], found["broken"]) == (SCENARIOS[name].came, [])
    assert found["failures"] == []
    assert found["held"] == found["cases"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_was_played_is_said() -> None:
    every = list(results().values())
    total = {key: sum(found[key] for found in every) for key in ("sites", "cases", "held", "played")}
    print(
        f"\n{total['sites']} call sites x faults = {total['cases']} cases, {total['held']} held; "
        f"{total['played']} were played, the others end like one of these after the same writes"
    )
    for found in every:
        print(f"  {found['scenario']}: {found['sites']} sites, {found['cases']} cases, {found['held']} held")
    assert total["held"] == total["cases"]


def actions(callers: set[str]) -> set[str]:
    """Return the actions that the calls of these callers, which all had their faults, are authorised by."""
    found: set[str] = set()
    for scenario in results().values():
        for who, service, operation in scenario["explored"]:
            if who.split(".")[0] in callers:
                action = f"{IAM_PREFIX.get(service, service)}:{operation}"
                found |= PARTS.get(action, {RENAMED.get(action, action)})
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_action_of_a_function_had_its_faults(name: str) -> None:
    # AWS checks these along with another action; nobody calls them.
    along = set().union(*ALSO_CHECKED.values(), BY_HAND.get(name, set()))
    wanted = {SAME.get(action, action) for action in granted(FUNCTIONS[name]) - along}
    found = actions({Path(FUNCTIONS[name]["Properties"]["CodeUri"]).name})
    assert found - along == wanted


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MACHINES)
def test_every_action_of_a_machine_had_its_faults(name: str) -> None:
    machine = Path(MACHINES[name]["Properties"]["DefinitionUri"]).name.removesuffix(".asl.yaml")
    assert actions({machine}) == granted(MACHINES[name]) - LOG_DELIVERY
