"""Structured logs: one JSON object per line on standard error.

SageMaker's metric definitions are regular expressions over the log, so metrics are plain members of
the line (``{"level": "INFO", …, "train_loss": 0.21}``) and :data:`METRIC_DEFINITIONS` is the one place
that says how they are found.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

METRIC_NAMES = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_accuracy",
    "images_per_second",
    "epoch_seconds",
    "data_wait_share",
    "skipped_steps",
    "checkpoint_failures",
)
"""The metrics that a training job reports."""

METRIC_DEFINITIONS = [
    {"Name": name, "Regex": rf'"{name}": (-?[0-9.]+(?:[eE][-+]?[0-9]+)?)'} for name in METRIC_NAMES
]
"""SageMaker's ``MetricDefinitions`` for the training step."""


class JsonFormatter(logging.Formatter):
    """Write a record as one JSON object, with what was given as ``extra={"fields": {…}}`` beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "level": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if "RANK" in os.environ:
            line["rank"] = int(os.environ["RANK"])
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """Send every log record to standard error; ``LOG_LEVEL`` sets the level (default INFO)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO").upper(), handlers=[handler], force=True)


def event(logger: logging.Logger, message: str, **fields: object) -> None:
    """Log ``message`` at INFO with ``fields`` as members of the line."""
    logger.info(message, extra={"fields": fields})
