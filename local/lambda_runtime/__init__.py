"""AWS Lambda of the embedded AWS: the uploaded code in worker processes under the real runtime client.

Other adapters invoke functions through the API, ``aws.client("lambda").invoke(...)``.
"""

from __future__ import annotations

from local.context import LocalAws
from local.lambda_runtime import hooks, mappings
from local.lambda_runtime.asynchronous import AsynchronousInvoker
from local.lambda_runtime.service import LambdaService
from local.lambda_runtime.settings import Settings


def install(aws: LocalAws) -> None:
    """Install the workers, the asynchronous queue and the pollers into moto.

    Raises
    ------
    SettingError
        When an environment variable of the embedded Lambda has an unusable value.
    """
    service = LambdaService(aws, Settings.from_environment())
    asynchronous = AsynchronousInvoker(service)
    hooks.install(service, asynchronous)
    pollers = mappings.install(service)
    aws.on_stop(service.stop)
    aws.on_stop(asynchronous.stop)
    aws.on_stop(pollers.stop)
