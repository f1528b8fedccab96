"""The story of issue and remedy: a user's day with the loop, chapter by chapter, through AWS APIs alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo import corrections, diagnosis, digits, traffic
from demo.cloud import Cloud, Outputs, wait_for
from demo.display import Display
from demo.errors import StoryError
from demo.inbox import Inbox
from demo.monitoring import Monitor
from demo.result import Result, Span
from demo.telling import estimate, evaluation_rows, examples, milliseconds
from demo.traffic import Client, Reply, Stream
from demo.watching import Watcher

ROOT = Path(__file__).resolve().parents[1]
MANUAL_START = ROOT / "events" / "manual_retrain.json"

AUDITED = 40
"""Everyday answers that an auditor labels, right or wrong: enough for the monitor to say "healthy"."""

CORRECTED = 160
"""At most so many mistakes are corrected. Together with ``AUDITED`` this is ``MinimumNewLabels`` in
parameters.json: the ground truth alone is evidence for a run only when *all* of it has been accepted, so
whichever trigger comes first, the run's snapshot holds every label and none is left to start another."""

FILES = 5
"""The users' corrections come in so many files."""

STREAM_INTERVAL = 0.12
"""Seconds between two requests of the stream that goes on during the second retrain and the update."""

QUIET_SECONDS = 3.0
"""After everything has come to rest the story waits this long: a second retrain would show by then."""


@dataclass
class Story:
    """Plays the user and writes down what comes of it.

    Call the chapters in their order; :meth:`play` does.
    """

    cloud: Cloud
    outputs: Outputs
    display: Display
    result: Result
    watcher: Watcher = field(init=False)
    client: Client = field(init=False)
    inbox: Inbox = field(init=False)
    monitor: Monitor = field(init=False)
    stream: Stream | None = None
    runs: list[str] = field(default_factory=list)
    drift_replies: list[Reply] = field(default_factory=list)
    exam_before: list[Reply] = field(default_factory=list)
    triggered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.cloud, self.outputs, self.display, self.result)
        self.client = Client(self.cloud.client("sagemaker-runtime"), self.outputs.endpoint)
        self.inbox = Inbox(self.cloud, self.outputs, self.display)
        self.monitor = Monitor(self.watcher, self.client)

    def play(self) -> None:
        """Tell the whole story; end the stream of requests whatever happens."""
        try:
            self.upload_base_set()
            self.train_first_models()
            self.approve("first model approved")
            self.everyday_traffic()
            self.drifting_traffic()
            self.upload_corrections()
            self.detect_and_retrain()
            self.approve("new model approved")
            self.examine()
        finally:
            if self.stream is not None:
                self.stream.finish()

    # -- chapters -----------------------------------------------------------------------------------

    def upload_base_set(self) -> None:
        """Put the base set and the smoke test's examples into the bucket."""
        self.display.chapter("The base set: real handwritten digits")
        for key, body in digits.base_objects().items():
            self.cloud.client("s3").put_object(Bucket=self.outputs.bucket, Key=key, Body=body)
        sizes = {part: len(digits.split(part)) for part, _ in digits.SHARES}
        self.result.counts.update({f"{part}_images": size for part, size in sizes.items()})
        self.display.done(
            f"{sizes['base']} labelled digits in s3://{self.outputs.bucket}/base/; held back: "
            f"{sizes['traffic']} for everyday traffic, {sizes['drift']} for drifting traffic, "
            f"{sizes['exam']} for the exam that nobody labels"
        )

    def train_first_models(self) -> None:
        """Start the retrain state machine by hand and follow it to the registry."""
        self.display.chapter("A person starts the retrain state machine")
        known = self.watcher.known_runs()
        started = self.cloud.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs.retrain_machine, input=MANUAL_START.read_text()
        )
        self.result.mark(time.time(), "started by hand")
        self.display.done(f"started with events/{MANUAL_START.name}: {MANUAL_START.read_text().strip()}")
        run = self.watcher.wait_for_run(known, started["executionArn"])
        self._follow(run)

    def everyday_traffic(self) -> None:
        """Send undrifted digits; an auditor labels some; the monitor must find nothing wrong."""
        self.display.chapter("Everyday traffic, and an auditor's sample")
        started = datetime.now(UTC)
        replies = self._send(digits.split("traffic"), "everyday")
        self.result.points += traffic.points(replies, "everyday", 32)
        self.result.accuracy["everyday"] = traffic.accuracy(replies)
        self.display.done(
            f"{len(replies)} held-back digits: {traffic.accuracy(replies):.1%} right "
            f"({milliseconds(replies)} median)"
        )
        audited = corrections.audit(replies[:AUDITED], "audit.jsonl")
        known = self.watcher.retrain_executions()
        self.inbox.upload([audited])
        self.inbox.wait_until_accepted(AUDITED)
        self.display.done(f"an auditor labelled {AUDITED} of the answers, right or wrong: accepted")
        report = self.monitor.run(started)
        if report["violations"]:
            raise StoryError(
                f"the monitor reports a violation on undrifted traffic ({report['violations']}): "
                "the first model is not good enough for the threshold in demo/parameters.json"
            )
        self.display.done(f"the monitor finds no violation: {estimate(report)}")
        for item in self._wait_for_new_executions(known):
            self._tell_decision_of(item)

    def drifting_traffic(self) -> None:
        """Send digits as a new scanner delivers them."""
        self.display.chapter("A new scanner, dark ink on grey paper: drift")
        self.drift_started = datetime.now(UTC)
        self.result.mark(time.time(), "drift begins")
        drifting = digits.drift_all(digits.split("drift"))
        self.drift_replies = self._send(drifting, "drift")
        self.result.points += traffic.points(self.drift_replies, "drifted", 48)
        self.result.accuracy["drifted"] = traffic.accuracy(self.drift_replies)
        self.display.line(
            f"{len(self.drift_replies)} drifted digits: {self.result.accuracy['drifted']:.1%} right, "
            f"after {self.result.accuracy['everyday']:.1%} before",
            "warn",
        )

    def upload_corrections(self) -> None:
        """Upload the users' corrections, rubbish among them and one file twice."""
        self.display.chapter("Users correct mistakes: the inbox")
        self.runs_before = self.watcher.known_runs()
        self.triggered = self.watcher.retrain_executions()
        wrong = [reply for reply in self.drift_replies if not reply.right and not reply.error][:CORRECTED]
        uploads = corrections.corrections(wrong, FILES)
        good = sum(upload.good for upload in uploads)
        bad = sum(upload.bad for upload in uploads)
        self.result.mark(time.time(), "corrections uploaded")
        self.inbox.upload([*uploads, uploads[0]])
        self.display.done(
            f"{good} corrections in {FILES} files, {bad} bad records among them, "
            f"{uploads[0].name} uploaded twice"
        )
        # The second upload of a file is another version of the object: its lines are accepted again and
        # must count once.
        self.inbox.wait_until_accepted(AUDITED + good + uploads[0].good, labels=AUDITED + good)
        self.result.quarantine = self.inbox.wait_until_quarantined(bad)
        self.result.counts.update({"corrections": good, "bad_records": bad})
        self.display.done(f"accepted: {good} corrections")
        reasons = Counter(item["reason"] for item in self.result.quarantine)
        self.display.done(
            "in quarantine: " + ", ".join(f"{reason} × {n}" for reason, n in sorted(reasons.items()))
        )

    def detect_and_retrain(self) -> None:
        """Run the monitor; violation, alarm and ground truth together must start exactly one run."""
        self.display.chapter("The monitor looks: violation, alarm, one retrain")
        report = self.monitor.run(self.drift_started)
        if not report["violations"]:
            raise StoryError(f"the monitor reports no violation on drifted traffic: {estimate(report)}")
        self.result.mark(time.time(), "violation")
        self.display.line(f"violation: {report['violations'][0]['description']}", "warn")
        self.display.line(estimate(report))
        run = self.watcher.wait_for_run(self.runs_before)
        self.result.mark(time.time(), "retrain starts")
        exam = digits.drift_all(digits.split("exam"))
        self.exam_before = self._send(exam, "exam-before")
        self.result.accuracy["exam_before"] = traffic.accuracy(self.exam_before)
        self.display.done(
            f"exam before: {self.result.accuracy['exam_before']:.1%} of {len(exam)} drifted digits "
            "that nobody labels or trains on"
        )
        self.stream = Stream(
            Client(self.cloud.client("sagemaker-runtime"), self.outputs.endpoint),
            exam,
            "stream",
            STREAM_INTERVAL,
        )
        self.stream_started = time.time()
        self.stream.start()
        self.display.done("requests go on beside the training from here to the end")
        self.monitor.wait_for_alarm()
        self._follow(run)
        ended = self.watcher.wait_until_quiet(self.outputs.retrain_machine, self.triggered)
        self.result.counts["trigger_executions"] = len(ended)
        self.display.done(f"{len(ended)} triggers started the state machine, one of them the pipeline")

    def examine(self) -> None:
        """Measure the new model on the exam, and look whether everything stayed at one retrain."""
        self.display.chapter("The exam: drifted digits nobody has labelled or trained on")
        exam = digits.drift_all(digits.split("exam"))
        after = self._send(exam, "exam-after")
        everyday = self._send(digits.split("traffic")[AUDITED:], "everyday-after")
        streamed = self.stream.finish() if self.stream is not None else []
        self.result.points += traffic.points(
            sorted([*streamed, *after], key=lambda reply: reply.time), "unlabelled", 40
        )
        self.result.points += traffic.points(everyday, "everyday", 32)
        self.result.spans.append(
            Span("requests", f"{len(streamed)} requests", self.stream_started, time.time(), "InService")
        )
        self.result.accuracy["exam_after"] = traffic.accuracy(after)
        self.result.accuracy["everyday_after"] = traffic.accuracy(everyday)
        self.result.before = traffic.confusion(self.exam_before)
        self.result.after = traffic.confusion(after)
        self.result.examples = examples(self.exam_before, after)
        self.display.done(
            f"exam: {self.result.accuracy['exam_before']:.1%} before, "
            f"{self.result.accuracy['exam_after']:.1%} after"
        )
        self.display.done(f"everyday digits with the new model: {self.result.accuracy['everyday_after']:.1%}")
        self.display.doing("looking whether anything starts another retrain")
        time.sleep(QUIET_SECONDS)
        self.watcher.wait_until_quiet(self.outputs.retrain_machine, self.triggered)
        new = self.watcher.known_runs() - self.runs_before
        replies = [*self.client.replies, *streamed]
        self.result.counts.update(
            {
                "retrains_after_drift": len(new),
                "requests": len(replies),
                "failed_requests": sum(bool(reply.error) for reply in replies),
                "streamed_requests": len(streamed),
                "models_in_stream": len({reply.model for reply in streamed if reply.model}),
            }
        )
        self.result.seconds["median_latency"] = sorted(reply.seconds for reply in replies)[len(replies) // 2]
        failed = [reply for reply in replies if reply.error]
        if failed:
            self.display.line(f"{len(failed)} requests failed, the first with: {failed[0].error}", "bad")

    # -- parts of chapters --------------------------------------------------------------------------

    def approve(self, moment: str) -> None:
        """Approve the recommended package, as a person would in the registry, and follow the endpoint."""
        self.display.chapter("Approval, and the endpoint")
        generation = self.generation
        mine = [
            package
            for package in self.cloud.packages(self.outputs.package_group)
            if package.get("CustomerMetadataProperties", {}).get("generation") == generation
        ]
        chosen = [p for p in mine if p["CustomerMetadataProperties"].get("recommended") == "true"]
        if not chosen:
            said = [p["CustomerMetadataProperties"].get("reason", "no reason given") for p in mine]
            raise StoryError(
                f"no package of {generation} is recommended, so there is nothing to approve", said
            )
        package = chosen[0]
        known = {item["executionArn"] for item in self.cloud.executions(self.outputs.deploy_machine)}
        self.cloud.client("sagemaker").update_model_package(
            ModelPackageArn=package["ModelPackageArn"],
            ModelApprovalStatus="Approved",
            ApprovalDescription="recommended by the comparison on the frozen holdout",
        )
        self.result.mark(time.time(), moment)
        metadata = package["CustomerMetadataProperties"]
        self.display.done(
            f"approved version {package['ModelPackageVersion']} ({metadata['candidate']}): "
            f"{metadata.get('reason', '')}"
        )
        self.watcher.follow_deployment(known)
        self.result.mark(time.time(), "in service")
        self.display.done(f"endpoint {self.outputs.endpoint} serves {generation}/{metadata['candidate']}")

    def _follow(self, run: str) -> None:
        """Follow a pipeline run and the state machine behind it, then print the comparison."""
        self.runs.append(run)
        self.watcher.follow_run(run)
        self.watcher.wait_until_quiet(self.outputs.retrain_machine, self.triggered)
        packages = self.cloud.packages(self.outputs.package_group)
        if not packages:
            raise StoryError(
                "the pipeline succeeded but registered nothing", diagnosis.pipeline_run(self.cloud, run)
            )
        metadata = packages[-1]["CustomerMetadataProperties"]
        self.generation = metadata["generation"]
        evaluation = self.cloud.read_json(metadata["evaluationUri"])
        self.result.evaluations.append(evaluation)
        self.display.table(
            f"Comparison on the frozen holdout ({evaluation['holdout']['examples']} examples)",
            [
                "model",
                "architecture",
                "accuracy",
                "95 %",
                "macro F1",
                "newest corrections",
                "against champion",
            ],
            evaluation_rows(evaluation),
        )
        self.display.done(
            f"recommended: {evaluation['recommendation']['candidate']}: "
            f"{evaluation['recommendation']['reason']}"
        )

    def _send(self, images: Sequence[digits.Digit], prefix: str) -> list[Reply]:
        def progress(number: int) -> None:
            self.display.doing(f"sending digits: {number} of {len(images)}")

        replies = self.client.send_all(images, prefix, progress)
        self.display.doing("")
        if all(reply.error for reply in replies):
            raise StoryError(
                f"every request to the endpoint failed: {replies[0].error}",
                diagnosis.quietly(diagnosis.endpoint, self.cloud, self.outputs.endpoint),
            )
        return replies

    def _wait_for_new_executions(self, known: set[str]) -> list[dict[str, Any]]:
        """Wait for the executions that an event has started; there must be one."""

        def look() -> bool | None:
            return bool(self.watcher.retrain_executions() - known) or None

        self.display.doing("waiting for the state machine to decide on the new labels")
        wait_for("the start of the retrain state machine by the ground-truth event", look, 30)
        return self.watcher.wait_until_quiet(self.outputs.retrain_machine, known)

    def _tell_decision_of(self, execution: dict[str, Any]) -> None:
        for decision in self.cloud.decisions(self.outputs.table):
            if str(decision.get("execution", "")).endswith(execution["name"]):
                self.display.done(
                    f"the {AUDITED} new labels started the state machine, which decided: "
                    f"{decision['outcome']}: {decision.get('message') or decision['reason']}"
                )
