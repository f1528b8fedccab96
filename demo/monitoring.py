"""Run the accuracy monitor by hand over a window, and watch its alarm."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from demo import diagnosis
from demo.cloud import wait_for
from demo.errors import StoryError
from demo.telling import iso
from demo.traffic import Client
from demo.watching import Watcher

SECONDS = 90.0


@dataclass
class Monitor:
    """The monitor of a stack, run by hand.

    Parameters
    ----------
    watcher
        Follows its jobs.
    client
        Whose requests must have been captured before the monitor looks.
    """

    watcher: Watcher
    client: Client
    jobs: list[str] = field(default_factory=list)

    def run(self, start: datetime) -> dict[str, Any]:
        """Run the monitor by hand over the window since ``start``; return what it found."""
        self._wait_for_captures()
        answer = self.watcher.cloud.client("lambda").invoke(
            FunctionName=self.watcher.outputs.monitor_function,
            # The capture's times are whole seconds.
            Payload=json.dumps(
                {
                    "start": iso(start.replace(microsecond=0)),
                    "end": iso(datetime.now(UTC) + timedelta(seconds=1)),
                }
            ),
        )
        if "FunctionError" in answer:
            raise StoryError("the run-monitor function failed", diagnosis.function_error(answer))
        name = json.loads(answer["Payload"].read())["processingJobName"]
        self.jobs.append(name)
        self.watcher.display.line(f"monitor job {name}")
        job = self.watcher.follow_job(name)
        uri = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"].rstrip("/")
        bucket, prefix = uri.removeprefix("s3://").split("/", 1)
        keys = self.watcher.cloud.keys(bucket, prefix + "/")
        report: dict[str, Any] = {
            "job": name,
            "statistics": self.watcher.cloud.read_json(f"{uri}/statistics.json"),
            "violations": [],
        }
        if f"{prefix}/constraint_violations.json" in keys:
            found = self.watcher.cloud.read_json(f"{uri}/constraint_violations.json")
            report["violations"] = found["violations"]
        self.watcher.result.monitor.append(report)
        return report

    def _wait_for_captures(self) -> None:
        """Wait until the data capture holds every answered request: on AWS, too, it comes a little later."""
        wanted = sum(not reply.error for reply in self.client.replies)
        self.watcher.display.doing("waiting for the data capture")

        def look() -> int | None:
            prefix = f"capture/{self.watcher.outputs.endpoint}/"
            found = sum(1 for _ in self.watcher.cloud.lines(self.watcher.outputs.bucket, prefix))
            return found if found >= wanted else None

        wait_for(f"the capture of {wanted} requests", look, SECONDS, interval=0.5)
        self.watcher.display.doing("")

    def wait_for_alarm(self) -> None:
        """Wait until the accuracy alarm has gone off, and say why it did."""
        self.watcher.display.doing(f"waiting for the alarm {self.watcher.outputs.alarm}")

        def look() -> str | None:
            cloudwatch = self.watcher.cloud.client("cloudwatch")
            found = cloudwatch.describe_alarms(AlarmNames=[self.watcher.outputs.alarm])
            alarm = found["MetricAlarms"][0]
            return alarm["StateReason"] if alarm["StateValue"] == "ALARM" else None

        reason = wait_for(f"the alarm {self.watcher.outputs.alarm}", look, SECONDS)
        self.watcher.result.mark(time.time(), "alarm")
        self.watcher.display.line(f"alarm {self.watcher.outputs.alarm}: {reason}", "warn")
