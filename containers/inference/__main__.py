"""Entry point of the inference image: ``python -m inference serve``.

The model is read from ``$ML_BASE_DIR/model``. ``SAGEMAKER_BIND_TO_PORT`` sets the port (default 8080),
``BIND_HOST`` the address (default all, as SageMaker needs it).
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from common import contract, logs
from common.contract import Paths, environment
from inference.app import Application

if TYPE_CHECKING:
    from inference.predictor import Predictor

GRACE_SECONDS = 25
"""How long requests in flight may take after SIGTERM; SageMaker kills after 30 s."""
BACKLOG = 256

log = logging.getLogger(__name__)


def _end_cleanly(_signum: int, _frame: FrameType | None) -> None:
    """Exit 0: the server raises the signal again once it has stopped, and a wanted stop is no failure."""
    raise SystemExit(0)


def serve(paths: Paths) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    ContainerError
        The model cannot be loaded or the settings are wrong.
    """
    settings = environment()
    port = settings.integer("SAGEMAKER_BIND_TO_PORT", 8080, 1, 65535)
    host = settings.text("BIND_HOST", "0.0.0.0")  # noqa: S104 - SageMaker connects from outside the container
    failures: list[Exception] = []

    def load() -> Predictor:
        from inference.predictor import Predictor  # torch: seconds in which /ping already answers

        predictor = Predictor(paths.model)
        logs.event(log, "serving", model=predictor.card.version, device=str(predictor.device), port=port)
        return predictor

    def on_load_failure(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            Application(load, on_load_failure),
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_cleanly)
    server.run()
    if failures:
        raise failures[0]


def main(arguments: list[str]) -> int:
    """Run the server and return the exit code."""
    if arguments != ["serve"]:
        print(f"usage: python -m inference serve\nnot {arguments}", file=sys.stderr)
        return 2
    logs.configure()
    return contract.run(serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
