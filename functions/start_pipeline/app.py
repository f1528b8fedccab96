"""Start the generation's pipeline execution, or find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.start_pipeline import start_pipeline
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = start_pipeline(event, wiring())
        telemetry.count("PipelinesFound" if answer["found"] else "PipelinesStarted")
        telemetry.info(
            "pipeline execution found" if answer["found"] else "pipeline execution started", answer=answer
        )
        return answer
