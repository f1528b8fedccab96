"""Live pipeline runs that no claim waits for, and what of them is known."""

from __future__ import annotations

from truthloop.errors import DatasetInvalid
from truthloop.instances.prices import estimate
from truthloop.names import dataset_prefix
from truthloop.ports import Ports
from truthloop.retraining.claim import LastRun, Orphan
from truthloop.times import from_iso
from truthloop.versions.dataset import Dataset


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
    """Return an orphan as the run of the generation that it is named after, if it can be that one's.

    A generation asks for its run only when its dataset is whole: what began before that is somebody else's,
    whatever it is called.

    Nobody has written down which code it runs. It counts as today's: were it unknown, every generation after
    it would take the code for new and train again.
    """
    dataset = _dataset_of(orphan.display_name, ports)
    if dataset is None or not _is_before(dataset.created_at, orphan.started_at):
        return None
    return LastRun(
        generation=orphan.display_name,
        dataset_version=dataset.dataset_version,
        dataset_uri=ports.objects.uri(dataset_prefix(orphan.display_name)),
        pipeline_execution_arn=orphan.pipeline_execution_arn,
        started_at=orphan.started_at,
        code_version=ports.settings.policy.code_version,
        estimated_usd=orphan.estimated_usd,
    )


def forgotten_run_of(generation: str, ports: Ports) -> LastRun | None:
    """Return the run, live or ended, of a generation whose record has never heard of one.

    Raises
    ------
    PipelineNotFound
        When the pipeline is not deployed.
    """
    if _dataset_of(generation, ports) is None:
        return None  # and no other request: most claims that are taken over have not come that far
    found = ports.pipeline.find(generation)
    if found is None:
        return None
    orphan = Orphan(found.arn, found.display_name, found.started_at, _estimated_usd(ports))
    return forgotten_run(orphan, ports)


def _dataset_of(generation: str, ports: Ports) -> Dataset | None:
    key = f"{dataset_prefix(generation)}dataset.json"
    content = ports.objects.read_if_exists(key)
    if content is None:
        return None
    try:
        return Dataset.from_json(content, ports.objects.uri(key))
    except DatasetInvalid:
        return None  # not one of ours: it is waited for, and that is all


def _is_before(written: str, started: str) -> bool:
    try:
        return from_iso(written) <= from_iso(started)
    except (ValueError, TypeError):
        return False  # what does not say when it was written is not one of ours


def _estimated_usd(ports: Ports) -> float:
    policy = ports.settings.policy
    cost = estimate(policy.training_instance_type, policy.expected_instance_hours, policy.instance_price_usd)
    return cost or 0.0
