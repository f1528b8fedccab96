"""AWS::CloudWatch: metric alarms. Composite alarms and dashboards are missing: nothing evaluates them."""

from __future__ import annotations

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, words


class Alarm(ResourceType):
    """An alarm on one metric or on metric mathematics."""

    type = "AWS::CloudWatch::Alarm"
    applied = words(
        "AlarmName AlarmDescription ActionsEnabled AlarmActions OKActions InsufficientDataActions "
        "MetricName Namespace Statistic ExtendedStatistic Dimensions Period Unit "
        "EvaluationPeriods DatapointsToAlarm Threshold ComparisonOperator TreatMissingData "
        "EvaluateLowSampleCountPercentile Metrics ThresholdMetricId Tags"
    )
    create_only = words("AlarmName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the alarm."""
        return self.update(site, str(properties.get("AlarmName") or site.name(255)), {}, properties)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the alarm over the old one."""
        site.call("cloudwatch", "put_metric_alarm", **{**new, "AlarmName": physical_id})
        return Created(physical_id, {"Arn": site.arn("cloudwatch", f"alarm:{physical_id}")})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the alarm."""
        site.remove("cloudwatch", "delete_alarms", AlarmNames=[physical_id])


TYPES = (Alarm,)
