"""Say what a finished pipeline execution came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.decide_run import decide_run
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = decide_run(event, wiring())
        telemetry.count("Decided")
        telemetry.info(answer["message"], answer=answer)
        return answer
