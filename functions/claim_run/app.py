"""Claim the retrain run for an execution, or leave its trigger with the run in progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.claim_run import claim_run
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = claim_run(event, wiring())
        telemetry.count(answer["outcome"].title())
        telemetry.info(answer["outcome"].lower(), answer=answer)
        return answer
