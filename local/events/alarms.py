"""CloudWatch alarms that really watch: evaluation, state change events, actions and history."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from local.context import LocalAws
from local.events import alarm_rules, targets
from local.events.alarm_messages import (
    configuration,
    explain,
    invocation,
    message,
    past,
    region_name,
    state_of,
)
from local.events.alarm_settings import Watch, compile_settings, sample
from local.events.bus import EventBuses
from local.events.delivery import Deliverer, Job, RetryPolicy
from local.events.metrics import MetricStore, aggregate
from local.events.timers import Timers

log = logging.getLogger("local.events")

EVALUATE_EVERY = 1.0
"""Seconds. CloudWatch looks every minute (10 s for high resolution); nobody wants to wait for that here."""


class Alarms:
    """Hooks moto's CloudWatch so that alarms change state as on AWS."""

    def __init__(
        self,
        aws: LocalAws,
        buses: EventBuses,
        deliverer: Deliverer,
        timers: Timers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._aws = aws
        self._buses = buses
        self._deliverer = deliverer
        self._timers = timers
        self._clock = clock
        self._lock = threading.RLock()
        self._stores: dict[tuple[str, str], MetricStore] = {}

    def install(self) -> None:
        """Replace what moto does on PutMetricAlarm, PutMetricData and SetAlarmState."""
        put_alarm, put_data = CloudWatchBackend.put_metric_alarm, CloudWatchBackend.put_metric_data
        alarms = self

        def put_metric_alarm(backend: Any, **settings: Any) -> Any:
            watch = None if settings.get("rule") else compile_settings(settings)
            with alarms._lock:
                before = backend.alarms.get(settings["name"])
                alarm = put_alarm(backend, **settings)
                alarm.watch = watch
                _take_over(alarm, before)
            alarms._timers.after(0, lambda: alarms.evaluate(backend, alarm))
            return alarm

        def put_metric_data(backend: Any, namespace: str, metric_data: list[dict[str, Any]]) -> None:
            with alarms._lock:
                known = len(backend.metric_data)
                put_data(backend, namespace, metric_data)
                added = [sample(datum) for datum in backend.metric_data[known:]]
            touched = alarms._store(backend).add(added)
            for alarm in list(backend.alarms.values()):
                if alarm.watch and alarm.watch.keys & touched:
                    alarm.held_until = 0.0
                    alarms._timers.soon(functools.partial(alarms.evaluate, backend, alarm))

        def update_state(alarm: Any, reason: str, reason_data: str | None, state_value: str) -> None:
            # SetAlarmState: it lasts until CloudWatch evaluates the alarm the next time.
            period = alarm.watch.period if alarm.watch else 60
            with alarms._lock:
                alarm.held_until = alarms._clock() + min(period, 60)
                alarms._change(alarm, state_value, reason, reason_data)

        def describe_alarm_history(response: Any) -> Any:
            return ActionResult({"AlarmHistoryItems": _history(response)})

        CloudWatchBackend.put_metric_alarm = put_metric_alarm
        CloudWatchBackend.put_metric_data = put_metric_data
        Alarm.update_state = update_state
        CloudWatchResponse.describe_alarm_history = describe_alarm_history
        self._timers.every(EVALUATE_EVERY, self.evaluate_all)

    def _store(self, backend: Any) -> MetricStore:
        with self._lock:
            return self._stores.setdefault((backend.account_id, backend.region_name), MetricStore())

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate_all(self) -> None:
        """Evaluate every alarm once; silence alone can change a state."""
        for account in list(cloudwatch_backends.values()):
            for backend in list(account.values()):
                for alarm in list(backend.alarms.values()):
                    self.evaluate(backend, alarm)

    def evaluate(self, backend: Any, alarm: Any) -> None:
        """Bring one alarm's state up to date."""
        watch: Watch | None = alarm.watch
        with self._lock:  # SetAlarmState may come between a look at the data and the change
            now = self._clock()
            if watch is None or now < alarm.held_until or backend.alarms.get(alarm.name) is not alarm:
                return
            starts, points, counts = self._points(backend, watch, now)
            state = alarm_rules.decide(watch.settings, points, alarm.state_value)
            if state == alarm.state_value:
                return
            reason, data = explain(watch, state, alarm.state_value, now, starts, points, counts)
            self._change(alarm, state, reason, json.dumps(data, separators=(",", ":")))

    def _points(
        self, backend: Any, watch: Watch, now: float
    ) -> tuple[list[float], list[float | None], list[float]]:
        """Return start, value and sample count of each period of the evaluation range, oldest first."""
        store = self._store(backend)
        current = now // watch.period * watch.period
        length = watch.settings.periods + alarm_rules.EXTRA_PERIODS
        starts = [current - watch.period * back for back in range(length, -1, -1)]
        values = [self._value(store, watch, start) for start in starts]
        # The running period counts as soon as it has data, and is not missing before it ends.
        chosen = slice(1, None) if values[-1][0] is not None else slice(0, -1)
        return starts[chosen], [value for value, _ in values[chosen]], [count for _, count in values[chosen]]

    @staticmethod
    def _value(store: MetricStore, watch: Watch, start: float) -> tuple[float | None, float]:
        values: dict[str, float | None] = {}
        count = 0.0
        pending = list(watch.queries)
        for query in pending:
            if query.key:
                samples = store.bucket(query.key, start, watch.period, query.unit)
                values[query.id] = aggregate(samples, query.statistic)
                count += sum(sample.count for sample in samples)
        for query in pending:
            if query.expression:
                values[query.id] = query.expression.value(values)
        returned = next(query.id for query in watch.queries if query.returned)
        return values[returned], count

    # -- state changes -----------------------------------------------------------------------------

    def _change(self, alarm: Any, state: str, reason: str, reason_data: str | None) -> None:
        with self._lock:
            previous = state_of(alarm)
            now = datetime.now(UTC)
            transition = state != alarm.state_value
            alarm.state_value, alarm.state_reason = state, reason
            alarm.state_reason_data = reason_data or ""
            alarm.state_updated_timestamp = now
            if not transition:
                return
            alarm.state_transitioned_timestamp = now
            current = state_of(alarm)
            summary = f"Alarm updated from {previous['value']} to {state}"
            data = {"version": "1.0", "oldState": past(previous), "newState": past(current)}
            _remember(alarm, "StateUpdate", summary, data)
        self._publish(alarm, previous, current)
        if alarm.actions_enabled:
            self._act(alarm, previous, current)

    def _publish(self, alarm: Any, previous: dict[str, Any], current: dict[str, Any]) -> None:
        region, account = alarm.alarm_arn.split(":")[3:5]
        detail = {
            "alarmName": alarm.name,
            "configuration": configuration(alarm),
            "previousState": previous,
            "state": current,
        }
        event = self._buses.new_event(
            "aws.cloudwatch",
            "CloudWatch Alarm State Change",
            [alarm.alarm_arn],
            detail,
            region=region,
            account=account,
        )
        self._buses.publish(event, "default", account=account, region=region)

    def _act(self, alarm: Any, previous: dict[str, Any], current: dict[str, Any]) -> None:
        actions = {
            "ALARM": alarm.alarm_actions,
            "OK": alarm.ok_actions,
            "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
        }[current["value"]]
        region, account = alarm.alarm_arn.split(":")[3:5]
        for arn in actions or []:
            if ":sns:" in arn:
                body = json.dumps(message(alarm, previous, current))
                subject = f'{current["value"]}: "{alarm.name}" in {region_name(region)}'[:100]
            else:
                body, subject = json.dumps(invocation(alarm, account, region, previous, current)), None
            payload = targets.Payload(body, key=str(uuid.uuid4()), subject=subject)
            self._deliverer.start(self._job(alarm, arn, payload))

    def _job(self, alarm: Any, arn: str, payload: targets.Payload) -> Job:
        def attempt(_: int) -> None:
            summary = {"version": "1.0", "actionState": "Succeeded", "notificationResource": arn}
            try:
                targets.send(self._aws, {"Arn": arn}, payload)
            except targets.DeliveryError as error:
                failed = summary | {"actionState": "Failed", "error": str(error)}
                _remember(alarm, "Action", f"Failed to execute action {arn}", failed)
                raise
            _remember(alarm, "Action", f"Successfully executed action {arn}", summary)

        return Job(
            what=f"action {arn} of alarm {alarm.name}",
            attempt=attempt,
            policy=RetryPolicy(attempts=3),
            dead_letter_arn=None,
            dead_letter=lambda _: (payload.body, {}),
        )


def _take_over(alarm: Any, before: Any) -> None:
    """Give a new alarm its first state; an updated one keeps its state and history."""
    alarm.held_until = 0.0
    alarm.history_items = before.history_items if before else []
    if before:
        for name in (
            "state_value",
            "state_reason",
            "state_reason_data",
            "state_updated_timestamp",
            "state_transitioned_timestamp",
        ):
            setattr(alarm, name, getattr(before, name))
    else:
        alarm.state_value = "INSUFFICIENT_DATA"
        alarm.state_reason_data = ""
        alarm.state_updated_timestamp = alarm.state_transitioned_timestamp = datetime.now(UTC)
    alarm.configuration_updated_timestamp = datetime.now(UTC)
    summary = f'Alarm "{alarm.name}" {"updated" if before else "created"}'
    _remember(
        alarm, "ConfigurationUpdate", summary, {"version": "1.0", "type": "Update" if before else "Create"}
    )


# -- history ---------------------------------------------------------------------------------------


def _remember(alarm: Any, kind: str, summary: str, data: dict[str, Any]) -> None:
    alarm.history_items.append(
        {
            "AlarmName": alarm.name,
            "AlarmType": "MetricAlarm",
            "Timestamp": datetime.now(UTC),
            "HistoryItemType": kind,
            "HistorySummary": summary,
            "HistoryData": json.dumps(data),
        }
    )


def _history(response: Any) -> list[dict[str, Any]]:
    name, kind = response._get_param("AlarmName"), response._get_param("HistoryItemType")
    start, end = response._get_param("StartDate"), response._get_param("EndDate")
    items = [
        item
        for alarm in list(response.cloudwatch_backend.alarms.values())
        if name in (None, alarm.name)
        for item in alarm.history_items
        if kind in (None, item["HistoryItemType"])
        and (start is None or item["Timestamp"] >= _aware(start))
        and (end is None or item["Timestamp"] <= _aware(end))
    ]
    newest_first = response._get_param("ScanBy") != "TimestampAscending"
    items.sort(key=lambda item: item["Timestamp"], reverse=newest_first)
    return items[: response._get_int_param("MaxRecords") or 100]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
