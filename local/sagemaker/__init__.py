"""SageMaker on the embedded AWS: jobs and endpoints as processes, pipelines, the registry.

A container image is a Dockerfile whose entry point is run as a process; everything else follows the
contracts that SageMaker documents. Operations that are not implemented refuse, naming themselves.
"""

from __future__ import annotations

from importlib import import_module

from local.context import LocalAws

OPERATION_MODULES = ("jobs_api", "models", "registry", "pipelines.api", "endpoints")
"""Importing them fills the table of operations."""


def install(aws: LocalAws) -> None:
    """Put the operations in place of moto's records."""
    from local.sagemaker import invoke, metrics, operations
    from local.sagemaker.state import SageMaker

    for module in OPERATION_MODULES:
        import_module(f"local.sagemaker.{module}")
    sagemaker = SageMaker(aws)
    operations.install(sagemaker)
    invoke.install(sagemaker)
    metrics.match_dimensions_exactly()
