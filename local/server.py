"""Start moto's server on the loopback interface with every adapter installed."""

from __future__ import annotations

import logging
import os
from importlib import import_module

from local.context import LocalAws

ADAPTERS = ("dynamodb", "lambda_runtime", "events", "stepfunctions", "sagemaker", "cloudformation")
"""Modules of ``local`` in the order in which they hook into moto; each has ``install(aws)``."""


def start(port: int, region: str = "us-east-1") -> LocalAws:
    """Start the embedded AWS and return it; the caller owns ``stop()``."""
    aws = LocalAws(port, region)
    os.environ["MOTO_PORT"] = str(port)
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"
    os.environ.setdefault("AWS_DEFAULT_REGION", region)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.core.config import default_user_config
    from moto.server import ThreadedMotoServer

    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    for name in ADAPTERS:
        import_module(f"local.{name}").install(aws)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    aws.on_stop(server.stop)
    return aws
