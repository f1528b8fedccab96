"""Start the job that measures the model in service over a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.run_monitor import NO_DATA, run_monitor
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = run_monitor(event, wiring())
        if answer["status"] == NO_DATA:
            telemetry.count("MonitorsWithoutData")
            telemetry.warning("the window holds no captured prediction: nothing was measured", answer=answer)
        else:
            telemetry.count("MonitorsStarted")
            telemetry.info("monitor job started", answer=answer)
        return answer
