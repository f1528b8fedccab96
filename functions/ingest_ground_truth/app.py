"""Let ground truth in from the inbox: accept, or quarantine with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from truthloop.steps.ingest_ground_truth import KnownLabels, ingest_ground_truth
from truthloop.telemetry import Telemetry
from truthloop.wiring import wiring

telemetry = Telemetry()
known_labels = KnownLabels()


def lambda_handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Ingest an SQS batch of S3 events; messages that failed are reported and come again alone."""
    with telemetry.invocation(event, context):
        available = timedelta(milliseconds=context.get_remaining_time_in_millis())
        result = ingest_ground_truth(event, wiring(), known_labels, available)
        if result.problem:
            telemetry.warning(result.problem)
        for failure in result.failures:
            telemetry.warning(str(failure.error), message_id=failure.message_id)
        telemetry.count("Accepted", result.counts.accepted)
        telemetry.count("Quarantined", result.counts.quarantined)
        telemetry.count("UnknownLabels", result.counts.unknown)
        telemetry.count("FailedMessages", len(result.failures))
        telemetry.info("batch ingested", **result.counts.to_log())
        return result.to_output()
