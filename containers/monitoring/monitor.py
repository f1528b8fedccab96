"""Measure the accuracy of the model in service: what the endpoint answered against what people say is right.

Reads the processing inputs ``capture`` (data capture files) and ``ground-truth`` (accepted files); writes
``statistics.json``, ``constraints.json`` and, only when the constraint is violated,
``constraint_violations.json`` in Model Monitor's formats to the output ``monitoring``, and publishes
CloudWatch metrics. Environment: ``ENDPOINT_NAME``, ``WINDOW_START``, ``WINDOW_END`` (ISO 8601, end
excluded), ``ACCURACY_THRESHOLD``, ``MINIMUM_LABELS``, ``METRIC_NAMESPACE`` (default ``Truthloop``).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.contract import Parameters, Paths, environment
from common.errors import ContractError
from common.logs import event
from dataset.captures import CaptureCounts, answers
from dataset.records import AUDIT, AcceptedLabels, Label, instant, read_accepted_labels
from evaluation import model_quality
from evaluation.scoring import confusion
from monitoring.estimator import AUDIT_SAMPLE, INSUFFICIENT_EVIDENCE, Estimate, Observations, estimate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One captured answer within the window and, if there is one, its label."""

    predicted: str
    truth: Label | None

    @property
    def right(self) -> bool:
        """Say whether the label confirms the answer."""
        return self.truth is not None and self.truth.label == self.predicted


@dataclass
class WindowCounts:
    """What was left out of the window's predictions, or of their labels, and why."""

    outside_window: int = 0
    without_prediction: int = 0
    disputed: int = 0


def _window(settings: Parameters) -> tuple[datetime, datetime]:
    bounds = []
    for name in ("WINDOW_START", "WINDOW_END"):
        text = settings.text(name)
        try:
            bounds.append(instant(text))
        except ValueError as error:
            raise ContractError(
                f"{settings.origin} {name} is {text!r}: it must be an ISO 8601 time"
            ) from error
    if bounds[0] >= bounds[1]:
        raise ContractError(
            f"the window is empty: WINDOW_START {bounds[0]} is not before WINDOW_END {bounds[1]}"
        )
    return bounds[0], bounds[1]


def predictions(
    capture: Path,
    accepted: AcceptedLabels,
    window: tuple[datetime, datetime],
    capture_counts: CaptureCounts,
    window_counts: WindowCounts,
) -> list[Prediction]:
    """Join the window's captured answers with the labels.

    An inference id that was used for several requests is one answer, the newest: a label cannot say which
    of them it means. An answer that authors disagree about, undecided, is as one that nobody has labelled:
    out of the audit sample, and presumed right where the estimate is an upper bound.
    """
    start, end = window
    newest: dict[str, tuple[datetime, str]] = {}
    for answer in answers(capture, capture_counts):
        at = answer.time
        if not start <= at < end:
            window_counts.outside_window += 1
            continue
        predicted = answer.prediction()
        if predicted is None:
            window_counts.without_prediction += 1
            continue
        newest[answer.inference_id] = max(newest.get(answer.inference_id, (at, predicted)), (at, predicted))
    window_counts.disputed = len(accepted.disputed & newest.keys())
    return [Prediction(predicted, accepted.labels.get(key)) for key, (_, predicted) in sorted(newest.items())]


def observe(seen: list[Prediction]) -> Observations:
    """Count what the estimator looks at."""
    labelled = [row for row in seen if row.truth]
    audited = [row for row in labelled if row.truth and row.truth.source == AUDIT]
    return Observations(
        captured=len(seen),
        labelled=len(labelled),
        labelled_right=sum(row.right for row in labelled),
        audited=len(audited),
        audited_right=sum(row.right for row in audited),
    )


def statistics(seen: list[Prediction], result: Estimate) -> dict[str, Any]:
    """Return ``statistics.json`` over the records that the estimate rests on.

    For the audit sample these are the audited records; for the upper bound all captured ones, the unlabelled
    presumed right; without enough evidence none.
    """
    if result.estimator == INSUFFICIENT_EVIDENCE:
        rows = []
    elif result.estimator == AUDIT_SAMPLE:
        rows = [(row.truth.label, row.predicted) for row in seen if row.truth and row.truth.source == AUDIT]
    else:
        rows = [(row.truth.label if row.truth else row.predicted, row.predicted) for row in seen]
    labels = sorted({label for pair in rows for label in pair})
    matrix = confusion([truth for truth, _ in rows], [predicted for _, predicted in rows], labels)
    return model_quality.statistics(matrix, labels)


def publish(namespace: str, endpoint: str, result: Estimate) -> None:
    """Put the window's metrics into CloudWatch, stamped with the time of the measurement.

    Not with that of the window: an alarm looks at its last periods only. High resolution lets the alarm's
    period be a team's choice.
    """
    import boto3  # a second of start-up that only a job with something to publish should pay

    values: list[tuple[str, float, str]] = [
        ("Labels", result.labels, "Count"),
        ("InsufficientEvidence", float(result.accuracy is None), "None"),
    ]
    if result.accuracy is not None:
        values.append(("Accuracy", result.accuracy, "None"))
    now = datetime.now(UTC)
    boto3.client("cloudwatch").put_metric_data(
        Namespace=namespace,
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
                "Timestamp": now,
                "Value": value,
                "Unit": unit,
                "StorageResolution": 1,
            }
            for name, value, unit in values
        ],
    )


def main(paths: Paths) -> None:
    """Run the processing job."""
    settings = environment()
    endpoint = settings.text("ENDPOINT_NAME")
    window = _window(settings)
    threshold = settings.number("ACCURACY_THRESHOLD", None, 0.0, 1.0)
    minimum_labels = settings.integer("MINIMUM_LABELS", None, 1, 10**9)
    namespace = settings.text("METRIC_NAMESPACE", "Truthloop")

    accepted = read_accepted_labels(paths.processing_input("ground-truth"))
    capture_counts, window_counts = CaptureCounts(), WindowCounts()
    seen = predictions(paths.processing_input("capture"), accepted, window, capture_counts, window_counts)
    observations = observe(seen)
    result = estimate(observations, minimum_labels)
    violated = result.violates(threshold)

    report = statistics(seen, result)
    report["truthloop"] = {
        "endpointName": endpoint,
        "windowStart": window[0].isoformat(),
        "windowEnd": window[1].isoformat(),
        "estimator": result.estimator,
        "accuracy": result.accuracy,
        "accuracyInterval": list(result.interval) if result.interval else None,
        "labels": result.labels,
        "minimumLabels": minimum_labels,
        "threshold": threshold,
        "violated": violated,
        "observations": asdict(observations),
        "captureRecords": capture_counts.lines,
        "malformedCaptureRecords": capture_counts.malformed,
        "recordsOutsideWindow": window_counts.outside_window,
        "recordsWithoutPrediction": window_counts.without_prediction,
        "disputedLabels": window_counts.disputed,
    }
    output = paths.processing_output("monitoring")
    files = {"statistics.json": report, "constraints.json": model_quality.constraints(threshold)}
    if violated and result.accuracy is not None:
        files["constraint_violations.json"] = model_quality.violations(result.accuracy, threshold)
    for name, content in files.items():
        (output / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    publish(namespace, endpoint, result)
    event(
        log,
        "monitored",
        **{key: report["truthloop"][key] for key in ("estimator", "accuracy", "labels", "violated")},
    )
