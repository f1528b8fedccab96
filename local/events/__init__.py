"""The events adapters of the embedded AWS."""

from __future__ import annotations

from local.context import LocalAws


def install(aws: LocalAws) -> None:
    """Hook the adapters into moto."""


def emit(
    aws: LocalAws,
    source: str,
    detail_type: str,
    resources: list[str],
    detail: dict[str, object],
    *,
    region: str | None = None,
    bus: str = "default",
) -> str:
    """Put one event on a bus as the AWS service ``source`` and return its id."""
    raise NotImplementedError
