"""The queue in front of asynchronous invocations: retries, the age limit, destinations."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from local.lambda_runtime import destinations
from local.lambda_runtime.destinations import Result
from local.lambda_runtime.errors import TooManyRequestsError
from local.lambda_runtime.service import LambdaService, Outcome

log = logging.getLogger("local.lambda")

DEFAULT_RETRIES = 2
DEFAULT_AGE = 21_600
THROTTLE_BACKOFF = (1.0, 300.0)
"""AWS tries a throttled event again after one second, doubling up to five minutes."""


@dataclass(frozen=True)
class QueuedEvent:
    """One event on its way.

    Attributes
    ----------
    waited
        Seconds of the queue's clock (``Settings.retry_minute``) that it has waited; running does not count.
    """

    account_id: str
    region: str
    function_name: str
    qualifier: str | None
    invoked_arn: str
    request_id: str
    payload: bytes
    headers: dict[str, str]
    attempts: int = 0
    throttled: int = 0
    waited: float = 0.0
    outcome: Outcome | None = None


class AsynchronousInvoker:
    """Delivers events to functions until they succeed or are given up."""

    def __init__(self, service: LambdaService) -> None:
        self._service = service
        self._aws = service.aws
        self._delays = Delays()

    def enqueue(self, event: QueuedEvent) -> None:
        """Take over an event; the caller gets 202 at once."""
        self._aws.submit(self._attempt, event)

    def _attempt(self, event: QueuedEvent) -> None:
        from moto.awslambda.exceptions import UnknownFunctionException

        backend = self._service.backend(event.account_id, event.region)
        try:
            function = backend.get_function(event.function_name, event.qualifier)
            config = invoke_config(function)
            outcome = self._service.invoke(
                function,
                event.payload,
                request_id=event.request_id,
                headers=event.headers,
                invoked_arn=event.invoked_arn,
            )
        except UnknownFunctionException:
            log.warning(
                "function %s was deleted with an event in its queue: the event is lost", event.invoked_arn
            )
            return
        except TooManyRequestsError:
            first, most = THROTTLE_BACKOFF
            again = replace(event, throttled=event.throttled + 1)
            self._later(again, config, function, min(first * 2**event.throttled, most))
            return
        done = replace(event, attempts=event.attempts + 1, outcome=outcome)
        if not outcome.failed:
            self._finish(done, config, function, "Success")
        elif done.attempts > config.get("MaximumRetryAttempts", DEFAULT_RETRIES):
            self._finish(done, config, function, "RetriesExhausted")
        else:
            self._later(done, config, function, 60.0 * done.attempts)

    def _later(self, event: QueuedEvent, config: dict[str, Any], function: Any, seconds: float) -> None:
        """Try again after ``seconds`` of the queue's clock, unless the event is too old by then."""
        waiting = replace(event, waited=event.waited + seconds)
        age_limit = config.get("MaximumEventAgeInSeconds", DEFAULT_AGE)
        if waiting.waited > age_limit:
            self._finish(event, config, function, "EventAgeExceeded")
            return
        delay = seconds * self._service.settings.retry_minute / 60
        self._delays.after(delay, lambda: self.enqueue(waiting))

    def _finish(self, event: QueuedEvent, config: dict[str, Any], function: Any, condition: str) -> None:
        version = event.outcome.executed_version if event.outcome else str(function.version)
        arn = event.invoked_arn
        result = Result(
            request_id=event.request_id,
            function_arn=arn if event.qualifier else f"{arn}:{version}",
            payload=event.payload,
            condition=condition,
            attempts=event.attempts,
            outcome=event.outcome,
        )
        side = "OnSuccess" if condition == "Success" else "OnFailure"
        destination = ((config.get("DestinationConfig") or {}).get(side) or {}).get("Destination")
        if destination:
            destinations.deliver(self._service, function.role, destination, result)
        dead_letter = (getattr(function, "dead_letter_config", None) or {}).get("TargetArn")
        if condition != "Success" and dead_letter:
            destinations.send_to_dead_letter_queue(self._service, function.role, dead_letter, result)

    def stop(self) -> None:
        """Drop what waits for a retry."""
        self._delays.stop()


def invoke_config(function: Any) -> dict[str, Any]:
    """Return the function's EventInvokeConfig, empty if it has none."""
    configs = function.event_invoke_config
    return dict(configs[-1].config) if configs else {}


class Delays:
    """Calls functions after a while, all from one thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._run, name="lambda-delays", daemon=True).start()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action``, which must not block, in ``seconds``."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), action))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                now = time.monotonic()
                if not self._heap or self._heap[0][0] > now:
                    self._changed.wait(self._heap[0][0] - now if self._heap else None)
                    continue
                _, _, action = heapq.heappop(self._heap)
            action()

    def stop(self) -> None:
        """End the thread; what is still waiting is dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
