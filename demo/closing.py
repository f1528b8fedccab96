"""After the story: the timeline, the figures, and the checks that decide about the exit code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from demo import costs
from demo.cloud import Cloud, Outputs
from demo.display import Display
from demo.result import Check, Figure, Result, Span

LEAST_DROP = 0.10
"""Drift that costs less accuracy than this would not be worth a story."""

LEAST_RISE = 0.10
"""The new model must be better on the exam by at least this much: far above chance with 269 images."""


def collect(cloud: Cloud, outputs: Outputs, result: Result, runs: list[str], monitor_jobs: list[str]) -> None:
    """Read what the timeline, the decision log and the costs need."""
    for machine, lane in ((outputs.retrain_machine, "retrain"), (outputs.deploy_machine, "deploy")):
        for item in cloud.executions(machine):
            span = _span(lane, item["name"], item["startDate"], item.get("stopDate"), item["status"])
            result.spans.append(span)
    for number, run in enumerate(runs, 1):
        for step in cloud.pipeline_steps(run):
            if isinstance(step.get("StartTime"), datetime):
                result.spans.append(
                    _span(
                        f"pipeline {number}",
                        step["StepName"],
                        step["StartTime"],
                        step.get("EndTime"),
                        step["StepStatus"],
                    )
                )
    for name in monitor_jobs:
        job = cloud.client("sagemaker").describe_processing_job(ProcessingJobName=name)
        start, end = job.get("ProcessingStartTime"), job.get("ProcessingEndTime")
        result.spans.append(_span("monitor", name, start, end, job["ProcessingJobStatus"]))
    result.decisions = cloud.decisions(outputs.table)
    result.packages = [
        {
            "version": package["ModelPackageVersion"],
            "status": package["ModelApprovalStatus"],
            **package.get("CustomerMetadataProperties", {}),
        }
        for package in cloud.packages(outputs.package_group)
    ]
    result.costs = costs.job_rows(cloud, runs, monitor_jobs)
    sagemaker = cloud.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName=outputs.endpoint)["EndpointConfigName"]
    variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    endpoint_spans = [span for span in result.spans if span.lane == "endpoint"]
    result.costs.append(costs.endpoint_row(variants[0]["InstanceType"], endpoint_spans))
    result.estimate_usd = costs.estimate(result.decisions)


def check(result: Result) -> None:
    """Fill in the checks: what must hold for the demo to have succeeded."""
    accuracy, counts = result.accuracy, result.counts
    everyday, drifted = accuracy.get("everyday", 0.0), accuracy.get("drifted", 0.0)
    before, after = accuracy.get("exam_before", 0.0), accuracy.get("exam_after", 0.0)
    retrains = counts.get("retrains_after_drift", 0)
    failed, requests = counts.get("failed_requests", 0), counts.get("requests", 0)
    result.checks = [
        Check(
            "drift hurts",
            everyday - drifted >= LEAST_DROP,
            f"{drifted:.1%} right on drifted digits after {everyday:.1%} on everyday ones",
        ),
        Check(
            "exactly one retrain",
            retrains == 1,
            f"{counts.get('trigger_executions', 0)} triggers after the drift led to {retrains} pipeline "
            f"{'run' if retrains == 1 else 'runs'}",
        ),
        Check(
            "the accuracy rose",
            after - before >= LEAST_RISE,
            f"exam on drifted digits nobody labelled: {before:.1%} before, {after:.1%} after",
        ),
        Check(
            "no request failed",
            failed == 0 and counts.get("models_in_stream", 0) >= 2,
            f"{failed} of {requests} failed; the {counts.get('streamed_requests', 0)} requests beside "
            f"training and update were answered by {counts.get('models_in_stream', 0)} models",
        ),
        Check(
            "bad records are in quarantine",
            len(result.quarantine) == counts.get("bad_records", -1),
            f"{len(result.quarantine)} of {counts.get('bad_records', 0)}",
        ),
    ]


def figures(result: Result) -> None:
    """Fill in the rows of the table at the end."""
    accuracy, counts, memory = result.accuracy, result.counts, result.memory
    result.figures = [
        Figure("accuracy, everyday digits", f"{accuracy['everyday']:.1%}", "first model"),
        Figure("accuracy, drifted digits", f"{accuracy['drifted']:.1%}", "first model: the drop"),
        Figure(
            "exam before",
            f"{accuracy['exam_before']:.1%}",
            f"{counts['exam_images']} unlabelled drifted digits",
        ),
        Figure("exam after", f"{accuracy['exam_after']:.1%}", "the same images, new model"),
        Figure("everyday digits, after", f"{accuracy['everyday_after']:.1%}", "nothing forgotten"),
        Figure("corrections accepted", f"{counts['corrections']}", "one file came twice and counted once"),
        Figure("bad records in quarantine", f"{len(result.quarantine)}", "with the reason beside each"),
        Figure("triggers after the drift", f"{counts['trigger_executions']}", "starts of the state machine"),
        Figure("retrains after the drift", f"{counts['retrains_after_drift']}", "pipeline runs"),
        Figure(
            "requests",
            f"{counts['requests']}",
            f"{counts['streamed_requests']} of them beside training and update",
        ),
        Figure("failed requests", f"{counts['failed_requests']}", ""),
        Figure(
            "median latency", f"{result.seconds['median_latency'] * 1000:.0f} ms", "one request, PNG to label"
        ),
        Figure(
            "memory at its peak",
            f"{memory['peak_bytes'] / 2**30:.2f} GiB",
            f"all processes, {memory['measure']}",
        ),
        Figure("time", f"{result.finished_at - result.started_at:.0f} s", "after the set-up"),
    ]


def show(display: Display, result: Result) -> None:
    """Print figures, decision log, costs and checks."""
    display.chapter("What came of it")
    display.table("Figures", ["", "", ""], [[f.name, f.value, f.note] for f in result.figures])
    display.table(
        "Decision log (table item DECISION)",
        ["at", "generation", "outcome", "triggers", "reason"],
        [decision_row(decision) for decision in result.decisions],
    )
    display.table(
        "The same run on AWS, us-east-1 list prices",
        ["what", "instance type", "USD/hour", "seconds", "USD"],
        cost_rows(result),
    )
    if result.estimate_usd:
        display.line(
            f"a run of full size (ExpectedInstanceHours in demo/parameters.json) is estimated at "
            f"{result.estimate_usd:,.2f} USD: that is what the policy counts against the monthly cap"
        )
    display.console.print()
    for item in result.checks:
        display.line(f"{item.name}: {item.detail}", "done" if item.passed else "bad")


def decision_row(decision: dict[str, Any]) -> list[str]:
    """Return one row of the decision log."""
    kinds: dict[str, int] = {}
    for trigger in decision.get("triggers", []):
        kinds[trigger["kind"]] = kinds.get(trigger["kind"], 0) + 1
    said = decision.get("message") or ""
    reason = decision["reason"]
    return [
        str(decision["at"])[11:19],
        decision.get("generation") or "",
        decision["outcome"],
        ", ".join(kind if n == 1 else f"{kind} × {n}" for kind, n in kinds.items()),
        f"{reason}: {said}" if said and said != reason else reason,
    ]


def cost_rows(result: Result) -> list[list[str]]:
    """Return the rows of the cost table, the sum last."""
    rows = [
        [
            row.what,
            row.instance_type,
            "n/a" if row.hourly_usd is None else f"{row.hourly_usd:.3f}",
            f"{row.seconds:.0f}",
            "n/a" if row.usd is None else f"{row.usd:.4f}",
        ]
        for row in result.costs
    ]
    return [*rows, ["together", "", "", "", f"{sum(row.usd or 0.0 for row in result.costs):.4f}"]]


def _span(lane: str, name: str, start: Any, end: Any, status: str) -> Span:
    begin = start.timestamp() if isinstance(start, datetime) else 0.0
    stop = end.timestamp() if isinstance(end, datetime) else begin
    return Span(lane, name, begin or stop, stop, status)
