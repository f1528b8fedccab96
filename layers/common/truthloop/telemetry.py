"""Logs and metrics of one invocation, with the run's names on every line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from truthloop.errors import TransientAwsError

_KEYS = ("execution", "generation")
_LONGEST_NAME = 256


class Telemetry:
    """One per function, made at import; Powertools reads service, namespace and level from the variables."""

    def __init__(self) -> None:
        self._logger: Any = Logger()
        self._metrics: Any = Metrics()

    @contextmanager
    def invocation(self, event: Mapping[str, Any], context: Any) -> Iterator[None]:
        """Name the invocation on every log line, log how it failed, and write its metrics.

        Parameters
        ----------
        event : Mapping
            The function's input; its ``execution`` and ``generation``, if any, become keys.
        context : Any
            Lambda's context.
        """
        named = event if isinstance(event, Mapping) else {}  # what it is instead, the step says
        keys = {key: str(named[key])[:_LONGEST_NAME] for key in _KEYS if named.get(key)}
        request = getattr(context, "aws_request_id", None)
        self._logger.append_keys(function_request_id=request, **keys)
        try:
            yield
        except TransientAwsError as error:
            self._logger.warning("will be tried again: %s", error)
            self.count("Retried")
            raise
        except Exception:
            self._logger.exception("failed")
            self.count("Failed")
            raise
        finally:
            self._metrics.flush_metrics()
            self._logger.remove_keys(["function_request_id", *keys])

    def info(self, message: str, **details: Any) -> None:
        """Log what happened."""
        self._logger.info(message, extra=details)

    def warning(self, message: str, **details: Any) -> None:
        """Log what somebody may have to look at."""
        self._logger.warning(message, extra=details)

    def count(self, metric: str, value: float = 1) -> None:
        """Add to a metric of this invocation."""
        self._metrics.add_metric(name=metric, unit=MetricUnit.Count, value=value)
