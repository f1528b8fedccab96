"""Fix the dataset version of the claimed generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.snapshot_dataset import snapshot_dataset
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = snapshot_dataset(event, wiring())
        telemetry.count("Snapshots")
        telemetry.info("dataset fixed", answer=answer)
        return answer
