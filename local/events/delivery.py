"""Deliver until it succeeds or the retry policy is spent, then to the dead-letter queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from local.context import LocalAws
from local.events.targets import DeliveryError, put_dead_letter
from local.events.timers import Timers

log = logging.getLogger("local.events")

DEFAULT_ATTEMPTS = 185
DEFAULT_AGE = 86_400
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a delivery is tried again."""

    attempts: int = DEFAULT_ATTEMPTS
    age: float = DEFAULT_AGE

    @classmethod
    def of(cls, policy: dict[str, int] | None) -> RetryPolicy:
        """Read ``MaximumRetryAttempts`` and ``MaximumEventAgeInSeconds``."""
        policy = policy or {}
        return cls(
            int(policy.get("MaximumRetryAttempts", DEFAULT_ATTEMPTS)),
            float(policy.get("MaximumEventAgeInSeconds", DEFAULT_AGE)),
        )


@dataclass(frozen=True)
class Failure:
    """Why a delivery was given up.

    Attributes
    ----------
    exhausted
        The part of the retry policy that was spent; ``None`` for an error that is not retried.
    """

    error: DeliveryError
    retries: int
    exhausted: str | None

    def attributes(self) -> dict[str, str]:
        """Return the message attributes with which EventBridge describes it."""
        described = {
            "ERROR_CODE": self.error.code,
            "ERROR_MESSAGE": self.error.message,
            "RETRY_ATTEMPTS": str(self.retries),
        }
        return described | ({"EXHAUSTED_RETRY_CONDITION": self.exhausted} if self.exhausted else {})


@dataclass(frozen=True)
class Job:
    """One payload for one target.

    Attributes
    ----------
    what
        Names the delivery in the log.
    attempt
        Makes one attempt, given its number (from 1).
    dead_letter_arn
        The queue for what cannot be delivered, if any.
    dead_letter
        Returns body and message attributes of the dead letter.
    """

    what: str
    attempt: Callable[[int], None]
    policy: RetryPolicy
    dead_letter_arn: str | None
    dead_letter: Callable[[Failure], tuple[str, dict[str, str]]]


class Deliverer:
    """Runs jobs in the background. The pauses are those of AWS in shape, not in length."""

    def __init__(self, aws: LocalAws, timers: Timers) -> None:
        self._aws = aws
        self._timers = timers

    def start(self, job: Job) -> None:
        """Begin with the first attempt at once."""
        began = time.monotonic()
        self._timers.soon(lambda: self._attempt(job, 1, began))

    def _attempt(self, job: Job, number: int, began: float) -> None:
        try:
            job.attempt(number)
        except DeliveryError as error:
            if self._aws.stopping.is_set():
                return
            if number == 1 and error.retryable:
                log.warning("%s failed and is tried again: %s", job.what, error)
            pause = min(_FIRST_PAUSE * 2 ** (number - 1), _LONGEST_PAUSE)
            exhausted = self._exhausted(job, number, time.monotonic() + pause - began)
            if error.retryable and exhausted is None:
                self._timers.after(pause, lambda: self._attempt(job, number + 1, began))
            else:
                self._give_up(job, error, number - 1, exhausted if error.retryable else None)
        except Exception as error:
            # A fault of ours must not lose the event.
            log.exception("%s broke off", job.what)
            self._give_up(
                job, DeliveryError("INTERNAL_ERROR", repr(error), retryable=False), number - 1, None
            )

    @staticmethod
    def _exhausted(job: Job, number: int, age: float) -> str | None:
        if number > job.policy.attempts:
            return "MaximumRetryAttempts"
        if age > job.policy.age:
            return "MaximumEventAgeInSeconds"
        return None

    def _give_up(self, job: Job, error: DeliveryError, retries: int, exhausted: str | None) -> None:
        fate = f"goes to {job.dead_letter_arn}" if job.dead_letter_arn else "is dropped: no dead-letter queue"
        log.warning("%s failed after %d retries and %s: %s", job.what, retries, fate, error)
        if not job.dead_letter_arn:
            return
        body, attributes = job.dead_letter(Failure(error, retries, exhausted))
        try:
            put_dead_letter(self._aws, job.dead_letter_arn, body, attributes)
        except DeliveryError as failure:
            log.error("%s is lost, its dead-letter queue refused it: %s", job.what, failure)  # noqa: TRY400
