"""Start moto's server on the loopback interface with every adapter installed."""

from __future__ import annotations

import logging
import os
import socket
from functools import lru_cache
from importlib import import_module
from typing import Any

from local.context import LocalAws
from local.guard import Guard

ADAPTERS = (
    "s3",
    "dynamodb",
    "iam",
    "lambda_runtime",
    "events",
    "stepfunctions",
    "sagemaker",
    "quotas",
    "cloudformation",
)
"""Modules of ``local`` in the order in which they hook into moto; each has ``install(aws)``."""

HOST = "127.0.0.1"


class PortInUseError(Exception):
    """Another process listens on the port already."""


def claim_port(port: int) -> socket.socket:
    """Return a listening socket on the loopback interface.

    Raises
    ------
    PortInUseError
        Saying what to do about it.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"cannot listen on {HOST}:{port}: {error.strerror}. "
            "Stop the process that has the port, or choose another one with PORT=<number>."
        ) from error
    return listener


def start(port: int, region: str = "us-east-1") -> LocalAws:
    """Start the embedded AWS and return it; the caller owns ``stop()``.

    Raises
    ------
    PortInUseError
        Before anything else is started or written.
    """
    listener = claim_port(port)
    aws = LocalAws(listener.getsockname()[1], region)
    try:
        os.environ["MOTO_PORT"] = str(aws.port)
        os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"
        os.environ.setdefault("AWS_DEFAULT_REGION", region)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        from moto.core.config import default_user_config

        # SAM attaches AWS's own policies (X-Ray, basic execution); a role must find them.
        default_user_config["iam"] = {"load_aws_managed_policies": True}
        aws.share_service_models()
        for name in ADAPTERS:
            import_module(f"local.{name}").install(aws)
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        from local.cloudformation import application
        from local.wsgi import serve

        def create_app(service: Any) -> Any:
            return application() if service == "cloudformation" else create_backend_app(service)

        dispatcher = DomainDispatcherApplication(create_app)
        # moto looks through the folders of all its services for it, under one lock, at each request.
        dispatcher.get_backend_for_host = lru_cache(maxsize=1024)(dispatcher.get_backend_for_host)
        serve(aws, listener, Guard(dispatcher, aws.port))
    except BaseException:
        aws.stop()
        listener.close()
        raise
    return aws
