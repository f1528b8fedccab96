"""The stepfunctions adapters of the embedded AWS."""

from __future__ import annotations

from local.context import LocalAws


def install(aws: LocalAws) -> None:
    """Hook the adapters into moto."""
