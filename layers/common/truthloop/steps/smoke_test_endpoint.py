"""Ask the endpoint about examples whose answer is known."""

from __future__ import annotations

import time
from typing import TypedDict

from truthloop.errors import AwsRequestFailed, SmokeTestFailed
from truthloop.inputs import SmokeTestInput
from truthloop.names import resource_name
from truthloop.ports import Ports
from truthloop.serving.deployment import choose_examples, judge_answer, judge_labels
from truthloop.settings import SMOKE_TEST_PREFIX

_MODEL_FAULT = "ModelError"
"""The container answered with an error; every other refusal is about the request or who makes it."""


class SmokeTestOutput(TypedDict):
    """How many examples were asked about, and the slowest answer in milliseconds."""

    examples: int
    latencyMs: int
    message: str


def smoke_test_endpoint(event: object, ports: Ports) -> SmokeTestOutput:
    """Check that the endpoint serves the configuration, and serves it rightly.

    Without examples under ``smoke-test/`` it cannot be asked anything; the message says so.

    Raises
    ------
    SmokeTestFailed
        When the endpoint serves another configuration (SageMaker has rolled back), refuses an example,
        answers something that is not a prediction, or labels half of the examples or more wrongly.
    TransientAwsError
        When an answer did not come for a reason that may pass.
    InvalidEvent
        When the input names no configuration.
    """
    config_name = SmokeTestInput.parse(event).config_name
    state = ports.endpoint.state()
    if state is None or state.status != "InService" or state.config_name != config_name:
        now = f"{state.status} with {state.config_name} {state.failure_reason}" if state else "gone"
        raise SmokeTestFailed(f"{ports.endpoint.name} should serve {config_name} and is {now.strip()}")
    keys = (info.key for info in ports.objects.list(SMOKE_TEST_PREFIX))
    examples = choose_examples(keys, SMOKE_TEST_PREFIX)
    answered, slowest = [], 0.0
    for number, (key, _) in enumerate(examples):
        content_type = "image/png" if key.lower().endswith(".png") else "image/jpeg"
        image = ports.objects.read(key)
        started = time.perf_counter()
        try:
            body = ports.endpoint.invoke(
                image, content_type, resource_name("smoke-test", config_name[-24:], str(number))
            )
        except AwsRequestFailed as error:
            if error.code != _MODEL_FAULT:
                raise  # a missing permission is not the package's fault
            raise SmokeTestFailed(f"{ports.endpoint.name} refused {key}: {error}") from error
        slowest = max(slowest, time.perf_counter() - started)
        answered.append(judge_answer(body, key))
    judge_labels([label for _, label in examples], answered)
    message = f"{len(examples)} known examples answered"
    if not examples:
        message = f"nothing asked: no known examples under s3://{ports.objects.bucket}/{SMOKE_TEST_PREFIX}"
    return {"examples": len(examples), "latencyMs": round(slowest * 1000), "message": message}
