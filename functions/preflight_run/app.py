"""Judge the evidence by the policy before any money is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.preflight_run import preflight_run
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = preflight_run(event, wiring())
        telemetry.count("Started" if answer["verdict"] == "START" else "Refused")
        telemetry.info(answer["message"], answer=answer)
        return answer
