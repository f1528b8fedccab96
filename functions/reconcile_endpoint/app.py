"""Compare the newest approved package with what the endpoint serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.reconcile_endpoint import reconcile_endpoint
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = reconcile_endpoint(event, wiring())
        telemetry.count(f"Reconcile{answer['action'].title()}")
        telemetry.info(answer["message"], answer=answer)
        return answer
