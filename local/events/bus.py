"""Event buses: accept events, match them against rules, and deliver them to the rules' targets."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.events.exceptions import (
    InvalidEventPatternException,
    ResourceNotFoundException,
    ValidationException,
)
from moto.events.models import EventPattern, EventPatternParser, EventsBackend, Rule, events_backends
from moto.events.responses import EventsHandler

from local.context import LocalAws
from local.events import inputs, patterns, targets
from local.events.delivery import Deliverer, Job, RetryPolicy

MAX_ENTRIES = 10
MAX_ENTRY_BYTES = 1024 * 1024
MAX_TARGETS = 5
_RULE_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,64}")
Event = dict[str, Any]


def timestamp(moment: datetime | None = None) -> str:
    """Return a moment as EventBridge writes it: UTC, whole seconds, ``Z``."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventBuses:
    """Hooks moto's EventBridge so that rules match and deliver as on AWS."""

    def __init__(self, aws: LocalAws, deliverer: Deliverer) -> None:
        self._aws = aws
        self._deliverer = deliverer

    # -- publishing --------------------------------------------------------------------------------

    def new_event(
        self,
        source: str,
        detail_type: str,
        resources: list[str],
        detail: dict[str, Any],
        *,
        region: str,
        account: str,
        time: datetime | None = None,
    ) -> Event:
        """Return an event in EventBridge's envelope."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": account,
            "time": timestamp(time),
            "region": region,
            "resources": resources,
            "detail": detail,
        }

    def publish(self, event: Event, bus: str, *, account: str, region: str) -> None:
        """Start the delivery of ``event`` to every matching rule of ``bus``."""
        event_bus = events_backends[account][region]._get_event_bus(bus)
        for rule in list(event_bus.rules.values()):
            if rule.state != "DISABLED" and rule.event_pattern.matches_event(event):
                self.deliver(rule, event)

    def deliver(self, rule: Any, event: Event) -> None:
        """Start the delivery of ``event`` to every target of ``rule``."""
        for target in list(rule.targets):
            self._deliverer.start(self._job(rule, target, event))

    def _job(self, rule: Any, target: dict[str, Any], event: Event) -> Job:
        # The key is stable over all attempts: a state machine takes it as the execution's name.
        key = f"{event['id']}_{uuid.uuid5(uuid.NAMESPACE_URL, rule.arn + '|' + target['Id'])}"
        predefined = inputs.Predefined(rule.arn, rule.name, timestamp())

        def attempt(_: int) -> None:
            arn = target["Arn"]
            if ":event-bus/" in arn:
                self._forward(arn, event)
            elif arn.endswith(":::"):
                _archive(rule, event)
            else:
                body = inputs.render(target, event, predefined)
                targets.send(self._aws, target, targets.Payload(body, key, event))

        return Job(
            what=f"event {event['id']} of rule {rule.name} to {target['Arn']}",
            attempt=attempt,
            policy=RetryPolicy.of(target.get("RetryPolicy")),
            dead_letter_arn=(target.get("DeadLetterConfig") or {}).get("Arn"),
            dead_letter=lambda failure: (
                json.dumps(event),
                {"RULE_ARN": rule.arn, "TARGET_ARN": target["Arn"], **failure.attributes()},
            ),
        )

    def _forward(self, arn_text: str, event: Event) -> None:
        arn = targets.Arn.parse(arn_text)
        name = arn.resource.split("/", 1)[1]
        try:
            self.publish(event, name, account=arn.account, region=arn.region)
        except ResourceNotFoundException as error:
            raise targets.DeliveryError("NO_RESOURCE", str(error), retryable=False) from error

    # -- the API -----------------------------------------------------------------------------------

    def put_events(self, backend: Any, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Serve PutEvents: each entry succeeds or fails on its own."""
        if len(entries) > MAX_ENTRIES:
            raise ValidationException(
                "1 validation error detected: Value '[PutEventsRequestEntry]' at 'entries' failed to satisfy "
                f"constraint: Member must have length less than or equal to {MAX_ENTRIES}"
            )
        if not entries:
            raise ValidationException(
                "1 validation error detected: Value '[]' at 'entries' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            )
        if sum(_size(entry) for entry in entries) > MAX_ENTRY_BYTES:
            raise ValidationException("Total size of the entries in the request is over the limit.")
        return [self._put_event(backend, entry) for entry in entries]

    def _put_event(self, backend: Any, entry: dict[str, Any]) -> dict[str, Any]:
        for name in ("Source", "DetailType", "Detail"):
            if not entry.get(name):
                reason = f"Parameter {name} is not valid. Reason: {name} is a required argument."
                return {"ErrorCode": "InvalidArgument", "ErrorMessage": reason}
        if entry["Source"].startswith("aws."):
            return {
                "ErrorCode": "NotAuthorizedForSourceException",
                "ErrorMessage": "Not authorized for the source.",
            }
        try:
            detail = json.loads(entry["Detail"])
        except ValueError:
            detail = None
        if not isinstance(detail, dict):
            return {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
        bus = backend._normalize_event_bus_arn(entry.get("EventBusName"))
        event = self.new_event(
            entry["Source"],
            entry["DetailType"],
            list(entry.get("Resources") or []),
            detail,
            region=backend.region_name,
            account=backend.account_id,
            time=_moment(entry.get("Time")),
        )
        if bus in backend.event_buses:
            # An unknown bus swallows the event and still answers with an id, as on AWS.
            self.publish(event, bus, account=backend.account_id, region=backend.region_name)
        return {"EventId": event["id"]}

    def install(self) -> None:
        """Replace moto's matching, delivery, validation and PutEvents."""
        put_rule, put_targets = EventsBackend.put_rule, EventsBackend.put_targets
        buses = self

        def parse_pattern(parser: Any) -> dict[str, Any]:
            try:
                return patterns.parse(parser.pattern) if parser.pattern else {}
            except patterns.InvalidPatternError as error:
                raise InvalidEventPatternException(reason=str(error)) from error

        def matches_event(pattern: Any, event: Event) -> bool:
            # A rule without a pattern is a schedule: it receives no events.
            return bool(pattern._pattern) and patterns.matches(pattern._pattern, event)

        def send_to_targets(rule: Any, original_event: Event, transform_input: bool = True) -> None:
            # moto calls this for replays, with the archived event under a new id.
            if rule.state != "DISABLED" and rule.event_pattern.matches_event(original_event):
                buses.deliver(rule, original_event)

        def checked_put_rule(backend: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if _RULE_NAME.fullmatch(name) is None:
                raise ValidationException(
                    f"1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint: "
                    "Member must satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+"
                )
            state = kwargs.get("state")
            states = ("ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
            if state and state not in states:
                raise ValidationException(
                    f"1 validation error detected: Value '{state}' at 'state' failed to satisfy constraint: "
                    f"Member must satisfy enum value set: [{', '.join(states)}]"
                )
            return put_rule(backend, name, *args, **kwargs)

        def checked_put_targets(
            backend: Any, name: str, event_bus_arn: str | None, targets: list[dict[str, Any]]
        ) -> None:
            for target in targets:
                _check_target(target)
            _check_count(backend, name, event_bus_arn, targets)
            put_targets(backend, name, event_bus_arn, targets)

        def test_event_pattern(handler: Any) -> str:
            return json.dumps(
                {"Result": _test_pattern(handler._get_param("EventPattern"), handler._get_param("Event"))}
            )

        EventPatternParser.parse = parse_pattern
        EventPattern.matches_event = matches_event
        Rule.send_to_targets = send_to_targets
        EventsBackend.put_rule = checked_put_rule
        EventsBackend.put_targets = checked_put_targets
        EventsBackend.put_events = lambda backend, events: buses.put_events(backend, events)
        EventsHandler.test_event_pattern = test_event_pattern


def _archive(rule: Any, event: Event) -> None:
    for archive in events_backends[rule.account_id][rule.region_name].archives.values():
        if archive.rule is rule or f"Events-Archive-{archive.name}" == rule.name:
            archive.events.append(event)


def _size(entry: dict[str, Any]) -> int:
    size = 14 if entry.get("Time") else 0
    texts = [
        entry.get("Source"),
        entry.get("DetailType"),
        entry.get("Detail"),
        *(entry.get("Resources") or []),
    ]
    return size + sum(len(text.encode()) for text in texts if text)


def _moment(time: Any) -> datetime | None:
    if time is None:
        return None
    if isinstance(time, int | float):
        return datetime.fromtimestamp(time, UTC)
    return datetime.fromisoformat(str(time))


def _test_pattern(pattern_text: str, event_text: str) -> bool:
    try:
        pattern = patterns.parse(pattern_text)
    except patterns.InvalidPatternError as error:
        raise InvalidEventPatternException(reason=str(error)) from error
    try:
        event = json.loads(event_text)
    except ValueError as error:
        raise ValidationException("Parameter Event is not valid. Reason: Invalid JSON") from error
    required = ("id", "account", "source", "time", "region", "resources", "detail-type")
    missing = [name for name in required if not isinstance(event, dict) or name not in event]
    if missing:
        raise ValidationException(f"Parameter Event is not valid. Reason: Event must have {missing[0]}")
    return patterns.matches(pattern, event)


def _check_count(backend: Any, rule_name: str, bus: str | None, given: list[dict[str, Any]]) -> None:
    rule = backend._get_event_bus(backend._normalize_event_bus_arn(bus)).rules.get(rule_name)
    known = {target["Id"] for target in rule.targets} if rule else set()
    if len(known | {target["Id"] for target in given}) > MAX_TARGETS:
        raise JsonRESTError(
            "LimitExceededException", "The requested resource exceeds the maximum number allowed."
        )


def _check_target(target: dict[str, Any]) -> None:
    name, arn = target["Id"], target["Arn"]
    if not arn.endswith(":::") and ":event-bus/" not in arn:
        try:
            targets.check(arn)
        except targets.UnsupportedTargetError as error:
            raise ValidationException(f"Parameter {arn} is not valid. Reason: {error}.") from error
    given = [key for key in ("Input", "InputPath", "InputTransformer") if target.get(key)]
    if len(given) > 1:
        raise ValidationException(
            f"Only one of Input, InputPath, or InputTransformer must be provided for target {name}."
        )
    if target.get("Input"):
        _check_json(target["Input"], f"JSON syntax error in input for target {name}")
    transformer = target.get("InputTransformer") or {}
    paths = transformer.get("InputPathsMap") or {}
    for path in [target.get("InputPath"), *paths.values()]:
        _check_path(path, name)
    if transformer and not arn.endswith(":::"):
        _check_template(transformer.get("InputTemplate") or "", paths, name)
    policy = target.get("RetryPolicy") or {}
    _check_range(policy, "MaximumRetryAttempts", "maximumRetryAttempts", 0, 185)
    _check_range(policy, "MaximumEventAgeInSeconds", "maximumEventAgeInSeconds", 60, 86_400)


def _check_template(template: str, paths: dict[str, str], target_id: str) -> None:
    reserved = [name for name in paths if name.lower().startswith("aws")]
    if reserved:
        raise ValidationException(
            f"InputPathsMap of target {target_id} has {reserved[0]}: AWS is a reserved prefix."
        )
    unknown = sorted(
        name for name in inputs.variables(template) - set(paths) if not name.startswith("aws.events.")
    )
    if unknown:
        raise ValidationException(
            f"Invalid InputTemplate for target {target_id} : variable {unknown[0]} is not in InputPathsMap."
        )


def _check_path(path: str | None, target_id: str) -> None:
    if path is None:
        return
    try:
        inputs.check_path(path)
    except inputs.InvalidPathError as error:
        raise ValidationException(f"Invalid InputPath for target {target_id}. Reason: {error}") from error


def _check_json(text: str, message: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise ValidationException(message) from error


def _check_range(policy: dict[str, int], key: str, member: str, low: int, high: int) -> None:
    value = policy.get(key)
    if value is not None and not low <= int(value) <= high:
        bound = f"greater than or equal to {low}" if int(value) < low else f"less than or equal to {high}"
        where = f"targets.1.member.retryPolicy.{member}"
        raise JsonRESTError(
            "ValidationException",
            f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy constraint: "
            f"Member must have value {bound}",
        )
