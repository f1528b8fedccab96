"""Events on the embedded AWS: buses, schedules, alarms, bucket notifications and topics that deliver."""

from __future__ import annotations

from local.context import LocalAws

_BUSES = "event_buses"
"""Under this name the buses hang on the :class:`LocalAws`, for :func:`emit`."""


def install(aws: LocalAws) -> None:
    """Make moto's events, buckets, alarms, schedules and topics deliver."""
    from local.events.alarms import Alarms
    from local.events.bus import EventBuses
    from local.events.delivery import Deliverer
    from local.events.queue_metrics import QueueMetrics
    from local.events.s3_notifications import BucketNotifications
    from local.events.schedules import Schedules
    from local.events.sns import Topics
    from local.events.timers import Timers

    timers = Timers(aws)
    deliverer = Deliverer(aws, timers)
    buses = EventBuses(aws, deliverer)
    buses.install()
    BucketNotifications(aws, buses, deliverer).install()
    Alarms(aws, buses, deliverer, timers).install()
    QueueMetrics().install(timers)
    Schedules(aws, buses, deliverer).install(timers)
    Topics(aws, deliverer).install()
    vars(aws)[_BUSES] = buses


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
    where = region or aws.region
    buses = vars(aws)[_BUSES]
    event = buses.new_event(
        source, detail_type, resources, dict(detail), region=where, account=aws.account_id
    )
    buses.publish(event, bus, account=aws.account_id, region=where)
    return str(event["id"])
