"""What can be set about the embedded Lambda, and the environment variables that set it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

PYTHON = "TRUTHLOOP_LAMBDA_PYTHON"
MAX_IDLE = "TRUTHLOOP_LAMBDA_MAX_IDLE"
IDLE_SECONDS = "TRUTHLOOP_LAMBDA_IDLE_SECONDS"
MAX_RUNNING = "TRUTHLOOP_LAMBDA_MAX_RUNNING"
ACCOUNT_CONCURRENCY = "TRUTHLOOP_LAMBDA_ACCOUNT_CONCURRENCY"
INIT_TIMEOUT = "TRUTHLOOP_LAMBDA_INIT_TIMEOUT"
RETRY_MINUTE = "TRUTHLOOP_LAMBDA_RETRY_MINUTE"


class SettingError(ValueError):
    """An environment variable of the embedded Lambda has a value that is no number or out of range."""


@dataclass(frozen=True)
class Settings:
    """Limits of the embedded Lambda; the defaults fit a laptop.

    Attributes
    ----------
    python
        Interpreter for every function, or empty: one of the runtime's version if there is one.
    max_idle
        Idle workers kept at most, over all functions; the one unused for longest goes first.
    idle_seconds
        How long a worker may stay idle before it is ended.
    max_running
        Worker processes that run at the same time; further invocations wait for their turn.
    account_concurrency
        Concurrent executions of the account (AWS's default quota is 1,000).
    init_timeout
        Seconds for the init phase (AWS: 10).
    retry_minute
        How many real seconds one minute of the asynchronous queue lasts. AWS retries a failed event after
        one and after two minutes and counts the event's age on the same clock; nobody wants to watch that.
    """

    python: str = ""
    max_idle: int = 6
    idle_seconds: float = 30.0
    max_running: int = 16
    account_concurrency: int = 1000
    init_timeout: float = 10.0
    retry_minute: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises
        ------
        SettingError
            When a value is no number or not above its lower bound.
        """

        def number(name: str, default: float, least: float) -> float:
            text = environment.get(name, "")
            if not text:
                return default
            try:
                value = float(text)
            except ValueError:
                value = least - 1
            if value < least:
                raise SettingError(f"{name}={text!r}: give a number of at least {least:g}, or unset it.")
            return value

        return cls(
            python=environment.get(PYTHON, ""),
            max_idle=int(number(MAX_IDLE, cls.max_idle, 0)),
            idle_seconds=number(IDLE_SECONDS, cls.idle_seconds, 0),
            max_running=int(number(MAX_RUNNING, cls.max_running, 1)),
            account_concurrency=int(number(ACCOUNT_CONCURRENCY, cls.account_concurrency, 1)),
            init_timeout=number(INIT_TIMEOUT, cls.init_timeout, 0.1),
            retry_minute=number(RETRY_MINUTE, cls.retry_minute, 0),
        )
