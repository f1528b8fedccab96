"""Requests to the endpoint: one batch after the other, or on and on beside everything else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.digits import Digit
from demo.result import Confusion, Point


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered to one request.

    ``label`` and ``model`` are empty and ``error`` says why if the request failed.
    """

    inference_id: str
    digit: Digit
    label: str
    model: str
    time: float
    seconds: float
    error: str = ""

    @property
    def right(self) -> bool:
        """Whether the predicted label is the true one."""
        return self.label == self.digit.label


class Client:
    """A user's application that sends digits to the endpoint.

    Parameters
    ----------
    runtime
        A ``sagemaker-runtime`` client that does not retry: a failed request counts as one.
    endpoint
        Name of the endpoint.
    """

    def __init__(self, runtime: Any, endpoint: str) -> None:
        self._runtime = runtime
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._replies: list[Reply] = []

    def send(self, digit: Digit, inference_id: str) -> Reply:
        """Send one digit; a failure is a reply too."""
        began = time.time()
        try:
            answer = self._runtime.invoke_endpoint(
                EndpointName=self._endpoint,
                ContentType="image/png",
                Accept="application/json",
                Body=digit.png,
                InferenceId=inference_id,
            )
            said = json.loads(answer["Body"].read())
            reply = Reply(
                inference_id,
                digit,
                str(said["label"]),
                str(said.get("model", "")),
                began,
                time.time() - began,
            )
        except (ClientError, BotoCoreError, ValueError, KeyError) as error:
            reply = Reply(inference_id, digit, "", "", began, time.time() - began, f"{error}")
        with self._lock:
            self._replies.append(reply)
        return reply

    def send_all(
        self, digits: Sequence[Digit], prefix: str, progress: Callable[[int], None] | None = None
    ) -> list[Reply]:
        """Send each digit once, with inference ids ``<prefix>-<example id>``."""
        replies = []
        for number, digit in enumerate(digits, 1):
            replies.append(self.send(digit, f"{prefix}-{digit.example_id}"))
            if progress:
                progress(number)
        return replies

    @property
    def replies(self) -> list[Reply]:
        """All replies so far, in the order in which they came."""
        with self._lock:
            return list(self._replies)


class Stream(threading.Thread):
    """Requests that go on, whatever else happens, until :meth:`finish`.

    Parameters
    ----------
    client
        Sends them.
    digits
        What to send, again and again.
    prefix
        Of the inference ids.
    interval
        Pause between two requests in seconds.
    """

    def __init__(self, client: Client, digits: Sequence[Digit], prefix: str, interval: float) -> None:
        super().__init__(name=f"stream-{prefix}", daemon=True)
        self._client = client
        self._digits = digits
        self._prefix = prefix
        self._done = threading.Event()
        self.interval = interval
        self.replies: list[Reply] = []

    def run(self) -> None:
        """Send until told to stop."""
        for number, digit in enumerate(cycle(self._digits)):
            if self._done.wait(self.interval):
                return
            self.replies.append(self._client.send(digit, f"{self._prefix}-{number:05d}"))

    def finish(self) -> list[Reply]:
        """Stop and return all replies."""
        self._done.set()
        self.join()
        return list(self.replies)


def accuracy(replies: Sequence[Reply]) -> float:
    """Return the share of right answers; a failed request is a wrong one."""
    return sum(reply.right for reply in replies) / len(replies) if replies else 0.0


def confusion(replies: Sequence[Reply]) -> Confusion:
    """Count true against predicted labels of the requests that were answered."""
    labels = tuple(sorted({reply.digit.label for reply in replies} | {r.label for r in replies if r.label}))
    index = {label: number for number, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for reply in replies:
        if reply.label:
            counts[index[reply.digit.label]][index[reply.label]] += 1
    return Confusion(labels, tuple(tuple(row) for row in counts))


def points(replies: Sequence[Reply], stream: str, batch: int) -> list[Point]:
    """Return the accuracy of each ``batch`` consecutive replies; a shorter rest joins the last batch.

    A batch never spans two models, so the step at an update is as sharp as it was.
    """
    found: list[Point] = []
    start = 0
    while start < len(replies):
        model = replies[start].model
        end = start
        while end < len(replies) and end - start < batch and replies[end].model == model:
            end += 1
        part = replies[start:end]
        if len(part) < batch // 2 and found and found[-1].model == model:
            last = found.pop()
            total = last.requests + len(part)
            right = last.accuracy * last.requests + sum(reply.right for reply in part)
            found.append(Point(last.time, right / total, total, stream, model))
        else:
            middle = part[len(part) // 2].time
            found.append(Point(middle, accuracy(part), len(part), stream, model))
        start = end
    return found
