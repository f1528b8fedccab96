"""Release the claim and write the decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.steps.release_run import release_run
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Run the step; input and output are in docs/conventions.md."""
    with telemetry.invocation(event, context):
        answer = release_run(event, wiring())
        telemetry.count("Released" if answer["released"] else "StillRunning")
        telemetry.info(answer["message"], answer=answer)
        return answer
