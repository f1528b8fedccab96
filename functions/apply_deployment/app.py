"""Create or update the endpoint as the reconciler has said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.apply_deployment import apply_deployment
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = apply_deployment(event, wiring())
        telemetry.count("Applied")
        telemetry.info("deployment applied", answer=answer)
        return answer
