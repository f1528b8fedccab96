"""Fires what is due: EventBridge rules with a schedule, and the schedules of EventBridge Scheduler."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.events.exceptions import ValidationException as RuleValidationException
from moto.events.models import EventsBackend, events_backends
from moto.scheduler.exceptions import ScheduleGroupNotFound, ValidationException
from moto.scheduler.models import EventBridgeSchedulerBackend, scheduler_backends
from moto.scheduler.responses import EventBridgeSchedulerResponse

from local.context import LocalAws
from local.events import cron, scheduler_targets
from local.events.bus import EventBuses, timestamp
from local.events.delivery import Deliverer, Failure, Job, RetryPolicy
from local.events.timers import Timers

log = logging.getLogger("local.events")

LOOK_EVERY = 0.25
"""Seconds between two looks at the clock."""
PRECISION = timedelta(seconds=60)
"""AWS promises the minute, so a one-time schedule this late still runs."""


@dataclass
class _Next:
    """When a schedule is due next, as long as its definition stays the same."""

    definition: tuple[object, ...]
    schedule: cron.Schedule
    anchor: datetime
    due: datetime | None


class Schedules:
    """Hooks moto's rules and schedules so that they are checked when put and fire when due.

    Parameters
    ----------
    clock
        Returns the current time; a test gives its own and calls :meth:`fire_due`.
    """

    def __init__(
        self,
        aws: LocalAws,
        buses: EventBuses,
        deliverer: Deliverer,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._aws = aws
        self._buses = buses
        self._deliverer = deliverer
        self._clock = clock
        self._next: dict[str, _Next] = {}

    def install(self, timers: Timers) -> None:
        """Check schedules when they are put, and look at the clock from now on."""
        put_rule = EventsBackend.put_rule
        create, update = (
            EventBridgeSchedulerBackend.create_schedule,
            EventBridgeSchedulerBackend.update_schedule,
        )
        answer_update = EventBridgeSchedulerResponse.update_schedule

        def checked_put_rule(backend: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            expression = kwargs.get("scheduled_expression")
            if expression and not _suits_rule(expression):
                raise RuleValidationException("Parameter ScheduleExpression is not valid.")
            return put_rule(backend, name, *args, **kwargs)

        def create_schedule(backend: Any, **settings: Any) -> Any:
            group = settings.get("group_name") or "default"
            if group not in backend.schedule_groups:
                raise ScheduleGroupNotFound(group)
            _check(settings)
            return create(backend, **settings)

        def update_schedule(backend: Any, **settings: Any) -> Any:
            _check(settings)
            # UpdateSchedule replaces the whole schedule: what is not given gets its default.
            settings["state"] = settings.get("state") or "ENABLED"
            settings["schedule_expression_timezone"] = settings.get("schedule_expression_timezone") or "UTC"
            return update(backend, **settings)

        def answer_update_schedule(response: Any) -> Any:
            answer = answer_update(response)
            name = response.uri.split("?")[0].split("/")[-1]
            schedule = response.scheduler_backend.get_schedule(response._get_param("GroupName"), name)
            schedule.action_after_completion = response._get_param("ActionAfterCompletion")
            return answer

        EventsBackend.put_rule = checked_put_rule
        EventBridgeSchedulerBackend.create_schedule = create_schedule
        EventBridgeSchedulerBackend.update_schedule = update_schedule
        EventBridgeSchedulerResponse.update_schedule = answer_update_schedule
        timers.every(LOOK_EVERY, self.fire_due)

    def fire_due(self) -> None:
        """Fire everything whose time has come; what was missed while nobody looked fires once."""
        now = self._clock()
        alive: set[str] = set()
        for account in list(events_backends.values()):
            for backend in list(account.values()):
                for bus in list(backend.event_buses.values()):
                    for rule in list(bus.rules.values()):
                        if rule.scheduled_expression and rule.state != "DISABLED":
                            alive.add(rule.arn)
                            self._look_at_rule(rule, now)
        for account in list(scheduler_backends.values()):
            for backend in list(account.values()):
                for group in list(backend.schedule_groups.values()):
                    for schedule in list(group.schedules.values()):
                        if schedule.state != "DISABLED":
                            alive.add(schedule.arn)
                            self._look_at_schedule(backend, schedule, now)
        # What is disabled or deleted starts afresh when it comes back.
        for arn in set(self._next) - alive:
            del self._next[arn]

    # -- rules -------------------------------------------------------------------------------------

    def _look_at_rule(self, rule: Any, now: datetime) -> None:
        definition = (rule.scheduled_expression,)
        entry = self._next.get(rule.arn)
        if entry is None or entry.definition != definition:
            schedule = cron.parse(rule.scheduled_expression)
            # The rate of a rule counts from the moment in which the rule was made.
            entry = _Next(definition, schedule, now, schedule.next_after(now, now))
            self._next[rule.arn] = entry
        due = _take(entry, now)
        if due is None:
            return
        event = self._buses.new_event(
            "aws.events",
            "Scheduled Event",
            [rule.arn],
            {},
            region=rule.region_name,
            account=rule.account_id,
            time=due,
        )
        self._buses.deliver(rule, event)

    # -- EventBridge Scheduler ---------------------------------------------------------------------

    def _look_at_schedule(self, backend: Any, schedule: Any, now: datetime) -> None:
        definition = (
            schedule.schedule_expression,
            schedule.schedule_expression_timezone,
            schedule.start_date,
            schedule.end_date,
            # A new target or input does not make a schedule start over; a new schedule of that name does.
            schedule.creation_date,
        )
        entry = self._next.get(schedule.arn)
        if entry is None or entry.definition != definition:
            entry = _first(definition, schedule, now)
            self._next[schedule.arn] = entry
        end = _moment(schedule.end_date)
        if entry.due and end and entry.due > end:
            entry.due = None
        due = _take(entry, now)
        if due is not None:
            over = entry.due is None or bool(end and entry.due > end)
            self._deliverer.start(self._job(backend, schedule, due, completed=over))
        elif entry.due is None and end and end < now:
            _complete(backend, schedule)

    def _job(self, backend: Any, schedule: Any, due: datetime, *, completed: bool) -> Job:
        target = schedule.target
        occurrence = scheduler_targets.Occurrence(
            schedule_arn=schedule.arn,
            scheduled_time=timestamp(due),
            account=backend.account_id,
            region=backend.region_name,
        )

        def attempt(number: int) -> None:
            try:
                scheduler_targets.invoke(self._aws, target, occurrence, number)
            finally:
                if completed:
                    _complete(backend, schedule)

        def dead_letter(failure: Failure) -> tuple[str, dict[str, str]]:
            return scheduler_targets.payload(target, occurrence, 1), {
                "SCHEDULE_ARN": schedule.arn,
                "TARGET_ARN": target["Arn"],
                "EXECUTION_ID": occurrence.execution_id,
                "SCHEDULED_TIME": occurrence.scheduled_time,
                "IS_PAYLOAD_TRUNCATED": "false",
                **failure.attributes(),
            }

        return Job(
            what=f"schedule {schedule.name} of {occurrence.scheduled_time} to {target['Arn']}",
            attempt=attempt,
            policy=RetryPolicy.of(target.get("RetryPolicy")),
            dead_letter_arn=(target.get("DeadLetterConfig") or {}).get("Arn"),
            dead_letter=dead_letter,
        )


def _suits_rule(expression: str) -> bool:
    try:
        return not isinstance(cron.parse(expression), cron.At)
    except cron.InvalidScheduleError:
        return False


def _first(definition: tuple[object, ...], schedule: Any, now: datetime) -> _Next:
    zone = schedule.schedule_expression_timezone or "UTC"
    rule = cron.parse(schedule.schedule_expression, zone, any_unit=True)
    start = _moment(schedule.start_date)
    begin = max(start, now) if start else now
    # Without a start date a rate fires at once and then counts from there.
    anchor = start or now
    moment = begin - timedelta(microseconds=1)
    if isinstance(rule, cron.At):
        moment = now - PRECISION
    return _Next(definition, rule, anchor, rule.next_after(moment, anchor))


def _take(entry: _Next, now: datetime) -> datetime | None:
    due = entry.due
    if due is None or due > now:
        return None
    entry.due = entry.schedule.next_after(now, entry.anchor)
    return due


def _complete(backend: Any, schedule: Any) -> None:
    """Delete a schedule that has run for the last time, when it asks for that."""
    group = backend.schedule_groups.get(schedule.group_name)
    if (
        schedule.action_after_completion == "DELETE"
        and group
        and group.schedules.get(schedule.name) is schedule
    ):
        group.delete_schedule(schedule.name)


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value)).astimezone(UTC)


def _check(settings: dict[str, Any]) -> None:
    try:
        zone = settings.get("schedule_expression_timezone") or "UTC"
        cron.parse(settings["schedule_expression"], zone, any_unit=True)
        scheduler_targets.check(settings["target"])
    except (cron.InvalidScheduleError, scheduler_targets.InvalidTargetError) as error:
        raise ValidationException(str(error)) from error
    start, end = _moment(settings.get("start_date")), _moment(settings.get("end_date"))
    if start and end and end <= start:
        raise ValidationException("The EndDate you specify must come after the StartDate.")
    window = settings.get("flexible_time_window") or {}
    if window.get("Mode") == "FLEXIBLE" and not window.get("MaximumWindowInMinutes"):
        raise ValidationException("MaximumWindowInMinutes must be specified when the mode is FLEXIBLE.")
    if not re.fullmatch(r"[0-9a-zA-Z\-_.]{1,64}", settings["name"]):
        raise ValidationException(f"The schedule name {json.dumps(settings['name'])} is not valid.")
