"""Create, start and await state machines over HTTP, as a user's boto3 does."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from typing import Any

ROLE = "arn:aws:iam::123456789012:role/machine"
_numbers = itertools.count()


class Driver:
    """A boto3 client of Step Functions with the steps that every test repeats."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def create(self, definition: dict[str, Any], kind: str = "STANDARD") -> str:
        name = f"machine-{next(_numbers)}-{uuid.uuid4().hex[:8]}"
        answer = self.client.create_state_machine(
            name=name, definition=json.dumps(definition), roleArn=ROLE, type=kind
        )
        return str(answer["stateMachineArn"])

    def start(self, definition: dict[str, Any], value: Any = None) -> str:
        arn = self.create(definition)
        answer = self.client.start_execution(
            stateMachineArn=arn, input=json.dumps({} if value is None else value)
        )
        return str(answer["executionArn"])

    def wait(self, arn: str, seconds: float = 90) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            execution: dict[str, Any] = self.client.describe_execution(executionArn=arn)
            if execution["status"] != "RUNNING":
                return execution
            time.sleep(0.01)
        raise AssertionError(f"still running: {self.types(arn)}")

    def run(self, definition: dict[str, Any], value: Any = None) -> dict[str, Any]:
        return self.wait(self.start(definition, value))

    def output(self, definition: dict[str, Any], value: Any = None) -> Any:
        execution = self.run(definition, value)
        assert execution["status"] == "SUCCEEDED", execution
        return json.loads(execution["output"])

    def failure(self, definition: dict[str, Any], value: Any = None) -> tuple[str, str]:
        execution = self.run(definition, value)
        assert execution["status"] == "FAILED", execution
        return execution.get("error", ""), execution.get("cause", "")

    def events(self, arn: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("get_execution_history").paginate(executionArn=arn)
        return [event for page in pages for event in page["events"]]

    def types(self, arn: str) -> list[str]:
        return [event["type"] for event in self.events(arn)]


def machine(language: str = "JSONPath", /, **states: dict[str, Any]) -> dict[str, Any]:
    """Return a definition whose states follow each other as they are written; the last one ends it."""
    names = list(states)
    for position, name in enumerate(names):
        state = states[name]
        if state["Type"] in ("Choice", "Succeed", "Fail") or "Next" in state or "End" in state:
            continue
        if position + 1 < len(names):
            state["Next"] = names[position + 1]
        else:
            state["End"] = True
    return {"QueryLanguage": language, "StartAt": names[0], "States": states}


def one(language: str = "JSONPath", /, **state: Any) -> dict[str, Any]:
    """Return a definition with a single state."""
    return machine(language, Only=state)
