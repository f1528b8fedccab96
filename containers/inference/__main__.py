"""Entry point of the inference image: ``python -m inference serve``.

The model is read from ``$ML_BASE_DIR/model``. ``SAGEMAKER_BIND_TO_PORT`` sets the port (default 8080),
``BIND_HOST`` the address (default all, as SageMaker needs it), ``MODEL_SHA256`` the digest that the weights
must have, ``MAX_BATCH``, ``BATCH_WAIT_MS``, ``MAX_WAITING`` and ``ANSWER_WITHIN_SECONDS`` what `Limits` says,
``PRECISION`` ``fp16`` or ``fp32`` (default: ``fp16`` on a GPU), ``DECODERS`` the threads that decode large
pictures (default: one per core), ``THREADS`` those that compute on a CPU (default 0: `Predictor` measures).
It binds that one port, so ``SAGEMAKER_SAFE_PORT_RANGE`` is of no concern.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Literal

import uvicorn

from common import contract, logs
from common.contract import Parameters, Paths, environment
from common.errors import ContractError
from inference.app import Application, Limits

if TYPE_CHECKING:
    from inference.predictor import Predictor

GRACE_SECONDS = 25
"""How long requests in flight may take after SIGTERM; SageMaker kills after 30 s."""
BACKLOG = 256

log = logging.getLogger(__name__)


def _end_cleanly(_signum: int, _frame: FrameType | None) -> None:
    """Exit 0: the server raises the signal again once it has stopped, and a wanted stop is no failure."""
    raise SystemExit(0)


def _limits(settings: Parameters) -> Limits:
    default = Limits()
    return Limits(
        max_batch=settings.integer("MAX_BATCH", default.max_batch, 1, 1024),
        batch_wait=settings.number("BATCH_WAIT_MS", default.batch_wait * 1000, 0, 1000) / 1000,
        max_waiting=settings.integer("MAX_WAITING", default.max_waiting, 1, 100_000),
        answer_within=settings.number("ANSWER_WITHIN_SECONDS", default.answer_within, 0.05, 60),
    )


def _precision(settings: Parameters) -> Literal["fp16", "fp32"] | None:
    chosen = settings.choice("PRECISION", ("auto", "fp16", "fp32"), "auto")
    return {"fp16": "fp16", "fp32": "fp32"}.get(chosen)  # type: ignore[return-value]


def _digest(settings: Parameters) -> str:
    digest = settings.text("MODEL_SHA256", "").lower()
    if digest and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ContractError(f"environment variable MODEL_SHA256 is {digest!r}: it must be 64 hex digits")
    return digest


def http_server(application: Application, host: str, port: int) -> uvicorn.Server:
    """Return the HTTP server around the application."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
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
            proxy_headers=False,
        )
    )


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
    limits, precision, digest = _limits(settings), _precision(settings), _digest(settings)
    cores = len(os.sched_getaffinity(0))
    decoders = settings.integer("DECODERS", cores, 1, 64)
    threads = settings.integer("THREADS", 0, 0, 64)
    failures: list[Exception] = []

    def load() -> Predictor:
        from inference.predictor import Predictor  # torch: seconds in which /ping already answers

        predictor = Predictor(
            paths.model,
            digest,
            max_batch=limits.max_batch,
            precision=precision,
            decoders=decoders,
            threads=threads,
        )
        logs.event(
            log,
            "serving",
            model=predictor.card.version,
            device=str(predictor.device),
            precision=predictor.precision,
            threads=predictor.threads,
            most_at_once=predictor.most_at_once,
            digest="verified" if digest else "not given",
            port=port,
        )
        return predictor

    def on_load_failure(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = http_server(Application(load, on_load_failure, limits), host, port)
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
