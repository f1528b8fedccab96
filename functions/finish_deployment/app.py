"""Record what a deployment came to; reject the package of a failed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.finish_deployment import finish_deployment
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = finish_deployment(event, wiring())
        telemetry.count(answer["outcome"].title())
        telemetry.info(answer["message"], answer=answer)
        return answer
