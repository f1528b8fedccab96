"""The inference server with a model that does nothing: ``python bench/serving/null_ours.py <port>``.

All of the server's own path is there: HTTP, headers, limits, the queue, the batch on the worker thread, the
answer as JSON. What is left out is the predictor's: decoding the picture and computing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "containers"))

from inference.__main__ import http_server
from inference.answers import Answer, Scored
from inference.app import Application

SCORES = {str(digit): 0.91 if digit == 7 else 0.01 for digit in range(10)}
TOP = tuple(Scored(label=label, score=SCORES[label]) for label in ("7", "0", "1"))
ANSWER = Answer("7", 0.91, TOP, SCORES, "g00000001/new")


class NullPredictor:
    """Answers the same to every request."""

    card = SimpleNamespace(version="g00000001/new")

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Return as many answers."""
        return [ANSWER] * len(requests)


def fail(error: Exception) -> None:
    """Say what went wrong: there is nothing that could."""
    raise error


if __name__ == "__main__":
    application = Application(NullPredictor, fail)  # type: ignore[arg-type]
    http_server(application, "127.0.0.1", int(sys.argv[1])).run()
