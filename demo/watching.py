"""Watch the loop work, through the APIs that anybody has, and show it live."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from demo import diagnosis
from demo.cloud import Cloud, Outputs, wait_for
from demo.display import Display, steps_table
from demo.errors import StoryError, TookTooLongError
from demo.result import Result, Span

RETRAIN_SECONDS = 300.0
DEPLOY_SECONDS = 180.0
JOB_SECONDS = 120.0
START_SECONDS = 90.0
"""How long each part may take: several times what it takes on two cores that are busy otherwise."""

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


@dataclass
class Watcher:
    """Looks at the deployed loop and tells the display what it sees."""

    cloud: Cloud
    outputs: Outputs
    display: Display
    result: Result
    _endpoint: tuple[str, float] | None = None
    """The endpoint's status as last seen, and since when."""

    # -- retrain ------------------------------------------------------------------------------------

    def known_runs(self) -> set[str]:
        """Return the pipeline runs that exist now."""
        return {run["PipelineExecutionArn"] for run in self.cloud.pipeline_runs(self.outputs.pipeline)}

    def retrain_executions(self) -> set[str]:
        """Return the executions of the retrain machine that exist now."""
        return {item["executionArn"] for item in self.cloud.executions(self.outputs.retrain_machine)}

    def wait_for_run(self, known: Collection[str], starter: str | None = None) -> str:
        """Return the new pipeline run; fail at once if the execution that should start it ends without."""
        self.display.doing("waiting for the retrain state machine to start the pipeline")

        def look() -> str | None:
            new = self.known_runs() - set(known)
            if new:
                return sorted(new)[0]
            if starter is not None:
                found = self.cloud.client("stepfunctions").describe_execution(executionArn=starter)
                # A start that was coalesced succeeds too; another execution goes on for it.
                if found["status"] in ENDED - {"SUCCEEDED"}:
                    raise StoryError(
                        "the retrain state machine ended without starting the pipeline",
                        diagnosis.execution(self.cloud, starter) + self._last_decision(),
                    )
            return None

        try:
            return wait_for("the start of a pipeline run", look, START_SECONDS)
        except TookTooLongError as late:
            lines = [
                line
                for item in self.cloud.executions(self.outputs.retrain_machine)[-3:]
                for line in diagnosis.execution(self.cloud, item["executionArn"])
            ]
            raise TookTooLongError(str(late), lines + self._last_decision()) from late

    def follow_run(self, run: str) -> None:
        """Show the pipeline's steps until the run has ended; fail unless it succeeded."""
        shown: dict[str, str] = {}
        deadline = time.monotonic() + RETRAIN_SECONDS
        name = run.rsplit("/", 1)[-1]
        while True:
            found = self.cloud.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=run)
            steps = self.cloud.pipeline_steps(run)
            for step in steps:
                self._tell_step(step, shown)
            self.display.doing(
                f"pipeline run {name}",
                steps_table((step["StepName"], step["StepStatus"], seconds_of(step)) for step in steps),
            )
            status = found["PipelineExecutionStatus"]
            if status == "Succeeded":
                self.display.doing("")
                return
            if status in {"Failed", "Stopped"}:
                raise StoryError(
                    f"the pipeline run {status.lower()}", diagnosis.pipeline_run(self.cloud, run)
                )
            if time.monotonic() > deadline:
                raise TookTooLongError(
                    f"the pipeline run did not end within {RETRAIN_SECONDS:.0f} s",
                    [f"{step['StepName']}: {step['StepStatus']}" for step in steps],
                )
            time.sleep(0.4)

    def _tell_step(self, step: dict[str, Any], shown: dict[str, str]) -> None:
        name, status = step["StepName"], step["StepStatus"]
        if shown.get(name) == status:
            return
        shown[name] = status
        if status == "Executing":
            self.display.line(f"{name} runs")
        elif status == "Succeeded":
            seconds = seconds_of(step)
            self.display.done(f"{name} succeeded" + (f" in {seconds:.1f} s" if seconds else ""))
        elif status == "Failed":
            self.display.line(f"{name} failed: {step.get('FailureReason', 'no reason given')}", "bad")

    def wait_until_quiet(self, machine: str, ignore: Collection[str] = ()) -> list[dict[str, Any]]:
        """Wait until no execution of a state machine runs; return those that are not in ``ignore``.

        Raises
        ------
        StoryError
            One of them failed.
        """
        self.display.doing(f"waiting for {machine.rsplit(':', 1)[-1]} to finish")

        def look() -> list[dict[str, Any]] | None:
            mine = [item for item in self.cloud.executions(machine) if item["executionArn"] not in ignore]
            return None if any(item["status"] == "RUNNING" for item in mine) else mine

        ended = wait_for(f"the end of every execution of {machine.rsplit(':', 1)[-1]}", look, DEPLOY_SECONDS)
        self.display.doing("")
        for item in ended:
            if item["status"] != "SUCCEEDED":
                raise StoryError(
                    f"an execution of {machine.rsplit(':', 1)[-1]} ended {item['status']}",
                    diagnosis.execution(self.cloud, item["executionArn"]),
                )
        return ended

    def _last_decision(self) -> list[str]:
        decisions = self.cloud.decisions(self.outputs.table)
        if not decisions:
            return []
        last = decisions[-1]
        return [f"last decision: {last.get('outcome')}: {last.get('reason')}"]

    # -- endpoint -----------------------------------------------------------------------------------

    def follow_deployment(self, known: Collection[str]) -> None:
        """Show the endpoint's status until the deploy machine, started anew, has come to rest."""
        name = self.outputs.endpoint
        deadline = time.monotonic() + DEPLOY_SECONDS
        while True:
            status = self.cloud.endpoint_status(name)
            if self._note_endpoint(status):
                self.display.line(f"endpoint {name}: {status}")
            mine = [
                item
                for item in self.cloud.executions(self.outputs.deploy_machine)
                if item["executionArn"] not in known
            ]
            for item in mine:
                if item["status"] in ENDED - {"SUCCEEDED"}:
                    raise StoryError(
                        f"the deploy state machine ended {item['status']}",
                        diagnosis.execution(self.cloud, item["executionArn"])
                        + diagnosis.quietly(diagnosis.endpoint, self.cloud, name),
                    )
            rested = bool(mine) and all(item["status"] == "SUCCEEDED" for item in mine)
            if rested and status == "InService":
                self.display.doing("")
                return
            if rested and status == "Failed":
                raise StoryError("the endpoint failed", diagnosis.endpoint(self.cloud, name))
            if time.monotonic() > deadline:
                raise TookTooLongError(
                    f"the endpoint was not in service {DEPLOY_SECONDS:.0f} s after the approval",
                    diagnosis.quietly(diagnosis.endpoint, self.cloud, name),
                )
            self.display.doing(f"deploying: the endpoint is {status or 'not there yet'}")
            time.sleep(0.3)

    def _note_endpoint(self, status: str | None) -> bool:
        """Note the status on the timeline; return whether it is another than before."""
        now = time.time()
        if self._endpoint is not None and self._endpoint[0] != status:
            before, since = self._endpoint
            self.result.spans.append(Span("endpoint", before, since, now, before))
        changed = status is not None and (self._endpoint is None or self._endpoint[0] != status)
        if changed:
            self._endpoint = (str(status), now)
        return changed

    def close_timeline(self) -> None:
        """Let the endpoint's last status last until now."""
        if self._endpoint is not None:
            status, since = self._endpoint
            self.result.spans.append(Span("endpoint", status, since, time.time(), status))

    # -- monitor ------------------------------------------------------------------------------------

    def follow_job(self, name: str) -> dict[str, Any]:
        """Wait for a processing job and return its description; fail unless it completed."""
        self.display.doing(f"monitor job {name}")

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.cloud.client("sagemaker").describe_processing_job(
                ProcessingJobName=name
            )
            return found if found["ProcessingJobStatus"] in {"Completed", "Failed", "Stopped"} else None

        try:
            found = wait_for(f"the end of the monitor job {name}", look, JOB_SECONDS)
        except TookTooLongError as late:
            raise TookTooLongError(str(late), diagnosis.processing_job(self.cloud, name)) from late
        self.display.doing("")
        if found["ProcessingJobStatus"] != "Completed":
            raise StoryError(f"the monitor job {name} failed", diagnosis.processing_job(self.cloud, name))
        return found


def seconds_of(step: dict[str, Any]) -> float | None:
    """Return how long a step took or has taken so far."""
    start = step.get("StartTime")
    if not isinstance(start, datetime):
        return None
    end = step.get("EndTime")
    until = end if isinstance(end, datetime) else datetime.now(start.tzinfo)
    return max((until - start).total_seconds(), 0.0)
