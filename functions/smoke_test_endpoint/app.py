"""Ask the endpoint about examples whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.smoke_test_endpoint import smoke_test_endpoint
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = smoke_test_endpoint(event, wiring())
        telemetry.count("SmokeTests")
        telemetry.info(answer["message"], answer=answer)
        return answer
