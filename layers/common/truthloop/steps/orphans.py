"""Live pipeline runs that no claim waits for, and what of them is known."""

from __future__ import annotations

from truthloop.claim import LastRun, Orphan
from truthloop.dataset import Dataset
from truthloop.errors import DatasetInvalid
from truthloop.names import dataset_prefix
from truthloop.ports import Ports
from truthloop.prices import estimate


def find_orphans(ports: Ports, *, besides: str | None = None) -> list[Orphan]:
    """Return the live pipeline runs; while a claim is held, those `besides` its own generation's.

    Without a claim every live run is one that nobody waits for.

    Raises
    ------
    PipelineNotFound
        When the pipeline is not deployed.
    """
    live = ports.pipeline.live()
    cost = _estimated_usd(ports) if live else 0.0
    return [
        Orphan(run.arn, run.display_name, run.started_at, cost) for run in live if run.display_name != besides
    ]


def forgotten_run(orphan: Orphan, ports: Ports) -> LastRun | None:
    """Return an orphan as the run of the generation that it is named after, if that one's dataset is there.

    Nobody has written down which code it runs. It counts as today's: were it unknown, every generation after
    it would take the code for new and train again.
    """
    prefix = dataset_prefix(orphan.display_name)
    content = ports.objects.read_if_exists(f"{prefix}dataset.json")
    if content is None:
        return None
    try:
        dataset = Dataset.from_json(content, ports.objects.uri(f"{prefix}dataset.json"))
    except DatasetInvalid:
        return None  # not one of ours: it is waited for, and that is all
    return LastRun(
        generation=orphan.display_name,
        dataset_version=dataset.dataset_version,
        dataset_uri=ports.objects.uri(prefix),
        pipeline_execution_arn=orphan.pipeline_execution_arn,
        started_at=orphan.started_at,
        code_version=ports.settings.policy.code_version,
        estimated_usd=orphan.estimated_usd,
    )


def _estimated_usd(ports: Ports) -> float:
    policy = ports.settings.policy
    cost = estimate(policy.training_instance_type, policy.expected_instance_hours, policy.instance_price_usd)
    return cost or 0.0
