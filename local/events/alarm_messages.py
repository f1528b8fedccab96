"""The shapes in which CloudWatch tells of an alarm: reasons, events, topic messages, invocations."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.loaders

from local.events import alarm_rules
from local.events.alarm_settings import Query, Watch


def iso(moment: datetime | float) -> str:
    """Return a moment as CloudWatch writes it: milliseconds and ``+0000``."""
    when = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}+0000"


def state_of(alarm: Any) -> dict[str, Any]:
    """Return the alarm's state as events carry it."""
    state = {
        "reason": alarm.state_reason,
        "timestamp": iso(alarm.state_updated_timestamp),
        "value": alarm.state_value,
    }
    if alarm.state_reason_data:
        state["reasonData"] = alarm.state_reason_data
    return state


def past(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as the alarm's history carries it."""
    entry = {"stateValue": state["value"], "stateReason": state["reason"]}
    if "reasonData" in state:
        entry["stateReasonData"] = json.loads(state["reasonData"])
    return entry


def configuration(alarm: Any) -> dict[str, Any]:
    """Return what the alarm watches, as events carry it."""
    described_alarm: dict[str, Any] = {}
    if alarm.description:
        described_alarm["description"] = alarm.description
    described_alarm["metrics"] = [described(query) for query in alarm.watch.queries] if alarm.watch else []
    return described_alarm


def described(query: Query) -> dict[str, Any]:
    """Return one metric or expression of an alarm, as events carry it."""
    entry: dict[str, Any] = {"id": query.id}
    if query.label:
        entry["label"] = query.label
    if query.expression:
        entry["expression"] = query.expression.text
    if query.key:
        namespace, name, dimensions = query.key
        metric = {"dimensions": dict(dimensions), "name": name, "namespace": namespace}
        entry["metricStat"] = {"metric": metric, "period": query.period, "stat": query.statistic}
        if query.unit:
            entry["metricStat"]["unit"] = query.unit
    entry["returnData"] = query.returned
    return entry


def explain(
    watch: Watch,
    state: str,
    before: str,
    now: float,
    starts: list[float],
    points: list[float | None],
    counts: list[float],
) -> tuple[str, dict[str, Any]]:
    """Return StateReason and StateReasonData in CloudWatch's words."""
    rules = watch.settings
    real = [index for index, value in enumerate(points) if value is not None][-rules.periods :]
    values = [value for value in (points[index] for index in real) if value is not None]
    missing = rules.periods - len(values)
    data: dict[str, Any] = {"version": "1.0", "queryDate": iso(now)}
    if values:
        data["startDate"] = iso(starts[real[0]])
    if not watch.is_list:
        data["statistic"] = watch.queries[0].statistic
    data |= {"period": watch.period, "recentDatapoints": values, "threshold": rules.threshold}
    data["evaluatedDatapoints"] = [
        {"timestamp": iso(starts[index]), "sampleCount": counts[index], "value": points[index]}
        for index in reversed(real)
    ]
    if state == "INSUFFICIENT_DATA":
        noun = "datapoint was" if missing == 1 else "datapoints were"
        return f"Insufficient Data: {missing} {noun} unknown.", data
    words = alarm_rules.OPERATORS[rules.comparison][1]
    gap = ""
    if missing:
        treatment = {"breaching": "Breaching", "notBreaching": "NonBreaching"}.get(
            rules.treat_missing, "Missing"
        )
        gap = (
            f"no datapoints were received for {missing} period{'s' * (missing > 1)} and {missing} missing "
            f"datapoint{'s were' if missing > 1 else ' was'} treated as [{treatment}]"
        )
    if not values:
        return f"Threshold Crossed: {gap}.", data
    breaching = [index for index in real if rules.breaches(points[index] or 0.0)]
    shown = breaching if state == "ALARM" and breaching else real
    listed = ", ".join(f"{points[index]} ({_short(starts[index])})" for index in reversed(shown))
    verb = "was" if len(shown) == 1 else "were"
    if state == "ALARM":
        minimum = f"minimum {rules.datapoints} datapoint{'s' * (rules.datapoints > 1)}"
        text = (
            f"{len(shown)} out of the last {rules.periods} datapoints [{listed}] {verb} {words} "
            f"the threshold ({rules.threshold}) ({minimum} for {before} -> ALARM transition)"
        )
    else:
        noun = "datapoint" if len(shown) == 1 else "datapoints"
        text = f"{len(shown)} {noun} [{listed}] {verb} not {words} the threshold ({rules.threshold})"
    return f"Threshold Crossed: {text}{' and ' + gap if gap else ''}.", data


def _short(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%d/%m/%y %H:%M:%S")


def message(alarm: Any, previous: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON that CloudWatch publishes to a topic."""
    region, account = alarm.alarm_arn.split(":")[3:5]
    watch: Watch | None = alarm.watch
    trigger: dict[str, Any] = {}
    if watch:
        rules = watch.settings
        trigger = {
            "Period": watch.period,
            "EvaluationPeriods": rules.periods,
            "DatapointsToAlarm": rules.datapoints,
            "ComparisonOperator": rules.comparison,
            "Threshold": rules.threshold,
            "TreatMissingData": rules.treat_missing,
            "EvaluateLowSampleCountPercentile": alarm.evaluate_low_sample_count_percentile or "",
        }
        if watch.is_list:
            trigger["Metrics"] = [described(query) for query in watch.queries]
        elif watch.queries[0].key:
            namespace, name, dimensions = watch.queries[0].key
            extended = watch.queries[0].statistic.startswith("p")
            trigger |= {
                "MetricName": name,
                "Namespace": namespace,
                "StatisticType": "ExtendedStatistic" if extended else "Statistic",
                "ExtendedStatistic" if extended else "Statistic": watch.queries[0].statistic
                if extended
                else watch.queries[0].statistic.upper(),
                "Unit": watch.queries[0].unit,
                "Dimensions": [{"value": value, "name": dimension} for dimension, value in dimensions],
            }
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": account,
        "AlarmConfigurationUpdatedTimestamp": iso(alarm.configuration_updated_timestamp),
        "NewStateValue": current["value"],
        "NewStateReason": current["reason"],
        "StateChangeTime": current["timestamp"],
        "Region": region_name(region),
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": previous["value"],
        "OKActions": alarm.ok_actions or [],
        "AlarmActions": alarm.alarm_actions or [],
        "InsufficientDataActions": alarm.insufficient_data_actions or [],
        "Trigger": trigger,
    }


def invocation(
    alarm: Any, account: str, region: str, previous: dict[str, Any], current: dict[str, Any]
) -> dict[str, Any]:
    """Return the event with which CloudWatch invokes a function."""
    return {
        "source": "aws.cloudwatch",
        "alarmArn": alarm.alarm_arn,
        "accountId": account,
        "time": current["timestamp"],
        "region": region,
        "alarmData": {
            "alarmName": alarm.name,
            "state": current,
            "previousState": previous,
            "configuration": configuration(alarm),
        },
    }


@cache
def region_name(region: str) -> str:
    """Return the name of a region for people."""
    partitions = botocore.loaders.create_loader().load_data("endpoints")["partitions"]
    for partition in partitions:
        if region in partition["regions"]:
            return str(partition["regions"][region]["description"])
    return region
