"""What an alarm watches: the settings of PutMetricAlarm, checked and compiled."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError

from local.events import alarm_rules
from local.events.metric_math import Expression, InvalidExpressionError, compile_expression
from local.events.metrics import Key, Sample, UnsupportedStatisticError, check_statistic

WEEK = 604_800
_ACTIONS = ("sns", "lambda")


@dataclass(frozen=True)
class Query:
    """One entry of an alarm's metrics: a metric with its statistic, or an expression over others."""

    id: str
    key: Key | None
    statistic: str
    period: int
    unit: str | None
    expression: Expression | None
    label: str | None
    returned: bool


@dataclass(frozen=True)
class Watch:
    """What an alarm looks at, compiled once when the alarm is put."""

    settings: alarm_rules.Settings
    queries: tuple[Query, ...]
    period: int
    is_list: bool

    @property
    def keys(self) -> set[Key]:
        """Return the metrics whose data matter to the alarm."""
        return {query.key for query in self.queries if query.key}


def compile_settings(settings: dict[str, Any]) -> Watch:
    """Check the settings of PutMetricAlarm and return what to watch; refuse what cannot be evaluated."""
    comparison = settings.get("comparison_operator")
    if comparison not in alarm_rules.OPERATORS:
        raise ValidationError(
            f"Value '{comparison}' at 'comparisonOperator' is not supported by the embedded AWS; "
            f"it knows {', '.join(alarm_rules.OPERATORS)}."
        )
    if settings.get("threshold") is None:
        raise ValidationError("The parameter Threshold is required.")
    treat = settings.get("treat_missing_data") or "missing"
    if treat not in alarm_rules.TREATMENTS:
        raise ValidationError(
            f"Option {treat} is not supported. Supported options for parameter TreatMissingData are "
            "breaching, notBreaching, ignore, missing."
        )
    periods = int(settings.get("evaluation_periods") or 0)
    datapoints = int(settings.get("datapoints_to_alarm") or periods)
    if periods < 1 or not 1 <= datapoints <= periods:
        raise ValidationError(
            "DatapointsToAlarm must be between 1 and EvaluationPeriods, which must be at least 1."
        )
    for name in ("alarm_actions", "ok_actions", "insufficient_data_actions"):
        for arn in settings.get(name) or []:
            if len(arn.split(":")) < 6 or arn.split(":")[2] not in _ACTIONS:
                raise ValidationError(
                    f"Invalid or unsupported alarm action {arn}; use an SNS topic or a Lambda function."
                )
    data_queries = settings.get("metric_data_queries")
    queries = _list_queries(data_queries) if data_queries else (_single_query(settings),)
    spans = {query.period for query in queries if query.key}
    if len(spans) != 1:
        raise ValidationError("Period must be the same for all metrics of an alarm.")
    period = spans.pop()
    if period not in (10, 20, 30) and (period < 60 or period % 60):
        raise ValidationError("Period must be 10, 20, 30 or a multiple of 60.")
    if period * periods > WEEK:
        raise ValidationError(
            "Metrics cannot be checked across more than a week "
            f"(EvaluationPeriods * Period must be <= {WEEK})."
        )
    rules = alarm_rules.Settings(comparison, float(settings["threshold"]), periods, datapoints, treat)
    return Watch(rules, queries, period, bool(data_queries))


def _single_query(settings: dict[str, Any]) -> Query:
    if not settings.get("metric_name") or not settings.get("namespace") or not settings.get("period"):
        raise ValidationError("MetricName, Namespace and Period are required when there is no Metrics list.")
    statistic, extended = settings.get("statistic"), settings.get("extended_statistic")
    if bool(statistic) == bool(extended):
        raise InvalidParameterCombination("Specify either Statistic or ExtendedStatistic, not both.")
    key = _key(
        settings["namespace"],
        settings["metric_name"],
        [(dimension["Name"], dimension["Value"]) for dimension in settings.get("dimensions") or []],
    )
    chosen = str(statistic or extended)
    _check_statistic(chosen)
    return Query(
        str(uuid.uuid4()), key, chosen, int(settings["period"]), settings.get("unit"), None, None, True
    )


def _list_queries(data_queries: list[Any]) -> tuple[Query, ...]:
    queries: list[Query] = []
    for query in data_queries:
        returned = query.return_data is None or str(query.return_data).lower() == "true"
        if query.metric_stat is None:
            expression = _compile_expression(query.expression)
            queries.append(Query(query.id, None, "", 0, None, expression, query.label, returned))
            continue
        stat = query.metric_stat
        _check_statistic(stat.stat)
        dimensions = [(dimension.name, dimension.value) for dimension in stat.metric.dimensions]
        key = _key(stat.metric.namespace, stat.metric.metric_name, dimensions)
        queries.append(
            Query(query.id, key, stat.stat, int(stat.period), stat.unit, None, query.label, returned)
        )
    if sum(query.returned for query in queries) != 1:
        raise ValidationError("Exactly one element of the metrics list should return data.")
    known = {query.id for query in queries if query.key}
    for query in queries:
        unknown = sorted(query.expression.names - known) if query.expression else []
        if unknown:
            raise ValidationError(
                f"Expression {query.id} uses {unknown[0]}, which is no metric of this alarm "
                "(the embedded AWS does not compute expressions over expressions)."
            )
    return tuple(queries)


def _check_statistic(name: str) -> None:
    try:
        check_statistic(name)
    except UnsupportedStatisticError as error:
        raise InvalidParameterValue(str(error)) from error


def _compile_expression(text: str | None) -> Expression:
    try:
        return compile_expression(text or "")
    except InvalidExpressionError as error:
        raise ValidationError(f"Invalid metrics list: {error}") from error


def _key(namespace: str, name: str, dimensions: list[tuple[str, str]]) -> Key:
    return namespace, name, tuple(sorted(dimensions))


def sample(datum: Any) -> tuple[Key, Sample]:
    """Return a datum of moto's with the metric that it belongs to."""
    moment = datum.timestamp if datum.timestamp.tzinfo else datum.timestamp.replace(tzinfo=UTC)
    unit = datum.unit or "None"
    key = _key(datum.namespace, datum.name, [(item.name, item.value) for item in datum.dimensions])
    if hasattr(datum, "value"):
        value = datum.value
        return key, Sample(moment.timestamp(), value, value, value, 1.0, unit)
    return key, Sample(moment.timestamp(), datum.min, datum.max, datum.sum, datum.sample_count, unit)
