"""The SageMaker of one embedded AWS: what exists in which region, and the shared helpers."""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from local.context import LocalAws
from local.sagemaker.images import ImageStore
from local.sagemaker.processes import Supervisor
from local.sagemaker.publisher import Publisher
from local.sagemaker.spot import SpotMarket

if TYPE_CHECKING:
    from local.sagemaker.metrics import MetricBatcher

T = TypeVar("T")

Params = dict[str, Any]
"""A request or response in the API's own member names."""


def now() -> datetime:
    """Return the present time with a zone, as API responses carry it."""
    return datetime.now(UTC)


def random_id(length: int = 12) -> str:
    """Return a lower-case id such as SageMaker puts into execution ARNs."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


@dataclass
class Record:
    """Something that has an ARN, tags and an API description, and no behaviour of its own."""

    arn: str
    body: Params
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class RegionState:
    """All that SageMaker knows in one region.

    What is no more than a record has a table here; what acts by itself (jobs, endpoints, executions) is
    `held` by its class, which builds on this module.
    """

    name: str
    models: dict[str, Record] = field(default_factory=dict)
    endpoint_configs: dict[str, Record] = field(default_factory=dict)
    package_groups: dict[str, Record] = field(default_factory=dict)
    packages: dict[str, Record] = field(default_factory=dict)
    last_versions: dict[str, int] = field(default_factory=dict)
    package_tokens: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _held: dict[type, dict[str, Any]] = field(default_factory=dict)

    def held(self, kind: type[T]) -> dict[str, T]:
        """Return everything of a class, by its name or ARN; who makes one puts it in."""
        return self._held.setdefault(kind, {})

    def taggable(self, arn: str) -> Any:
        """Return the record with this ARN, or None."""
        records: tuple[dict[str, Any], ...] = (
            self.models,
            self.endpoint_configs,
            self.package_groups,
            self.packages,
        )
        for table in (*records, *list(self._held.values())):
            for record in list(table.values()):
                if record.arn == arn and hasattr(record, "tags"):
                    return record
        return None


class SageMaker:
    """SageMaker on the embedded AWS: state per region, processes, events, metrics.

    Parameters
    ----------
    aws
        The embedded AWS that this belongs to.
    """

    def __init__(self, aws: LocalAws) -> None:
        from local.sagemaker.metrics import MetricBatcher

        self.aws = aws
        self.workdir: Path = aws.workdir / "sagemaker"
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.images = ImageStore(self.workdir / "images")
        self.supervisor = Supervisor(aws)
        self.publisher = Publisher(aws)
        self.spot = SpotMarket()
        self.metrics: MetricBatcher = MetricBatcher(aws)
        self._regions: dict[str, RegionState] = {}
        self._lock = threading.Lock()

    def region(self, name: str) -> RegionState:
        """Return the state of one region."""
        with self._lock:
            return self._regions.setdefault(name, RegionState(name))

    def regions(self) -> list[RegionState]:
        """Return the state of every region that was used."""
        with self._lock:
            return list(self._regions.values())

    def arn(self, region: str, resource: str) -> str:
        """Return the ARN of a SageMaker resource such as ``training-job/name``."""
        return f"arn:aws:sagemaker:{region}:{self.aws.account_id}:{resource}"

    def spawn(self, work: Callable[..., None], *args: Any, name: str) -> threading.Thread:
        """Run ``work`` in a thread of its own: jobs wait for long and would exhaust a pool."""
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        thread.start()
        return thread


def tags_of(params: Params) -> dict[str, str]:
    """Return the request's tags as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []}
