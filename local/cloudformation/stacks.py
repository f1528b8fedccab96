"""Stacks: bring a template to life, change it, roll back what failed, take it down again."""

from __future__ import annotations

import logging
import re
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.cloudformation import model as models
from local.cloudformation.errors import (
    AlreadyExistsError,
    ChangeSetNotFoundError,
    InvalidChangeSetStatusError,
    ResourceError,
    TemplateError,
)
from local.cloudformation.model import Definition, Model, same
from local.cloudformation.resources import resource_types
from local.cloudformation.resources.base import Created, Site
from local.cloudformation.template import as_text
from local.context import LocalAws

log = logging.getLogger("local.cloudformation")

PATIENCE_S = 20.0
"""How long a request waits for its stack operation. On AWS it answers at once and clients poll; their
waiters poll every 30 s, so an operation that ends within the request saves them that time."""


_RETAINING = ("Retain", "RetainExceptOnCreate")


@dataclass
class Resource:
    """A resource of a stack, live or gone."""

    logical_id: str
    type: str
    physical_id: str
    attributes: dict[str, Any]
    properties: dict[str, Any]
    definition: Definition
    status: str
    reason: str | None = None
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Event:
    """One line of a stack's history."""

    stack_id: str
    stack_name: str
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str | None
    properties: str | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Stack:
    """A stack and its history."""

    id: str
    name: str
    region: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str | None = None
    model: Model | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: list[dict[str, str]] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    role_arn: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    change_set_id: str | None = None
    disable_rollback: bool = False
    on_failure: str = "ROLLBACK"
    protected: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime | None = None
    deleted: datetime | None = None

    def become(self, status: str, reason: str | None = None) -> None:
        """Enter ``status`` and write it into the history."""
        self.status, self.reason = status, reason
        self.tell(self.name, self.id, "AWS::CloudFormation::Stack", status, reason)

    def tell(
        self,
        logical_id: str,
        physical_id: str,
        kind: str,
        status: str,
        reason: str | None = None,
        properties: str | None = None,
    ) -> None:
        """Write one event."""
        self.events.append(
            Event(self.id, self.name, logical_id, physical_id, kind, status, reason, properties)
        )

    @property
    def busy(self) -> bool:
        """Whether an operation is running."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"


@dataclass
class Change:
    """One line of a change set."""

    action: str
    logical_id: str
    physical_id: str | None
    type: str
    replacement: str | None
    scope: list[str]


@dataclass
class ChangeSet:
    """A change set."""

    id: str
    name: str
    kind: str
    stack: Stack
    text: str
    given: dict[str, str]
    model: Model | None
    changes: list[Change]
    status: str
    execution_status: str
    reason: str | None
    description: str | None
    tags: dict[str, str]
    capabilities: list[str]
    role_arn: str | None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class _OperationFailedError(Exception):
    """A resource failed; the stack is to be rolled back."""


class Engine:
    """All stacks of the embedded AWS."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.stacks: dict[str, Stack] = {}
        self.change_sets: dict[str, ChangeSet] = {}
        self._lock = threading.RLock()

    # -- look-ups ------------------------------------------------------------------------------

    def find(self, name_or_id: str, region: str) -> Stack:
        """Return the stack with this id, or the live one with this name."""
        with self._lock:
            if name_or_id in self.stacks:
                return self.stacks[name_or_id]
            for stack in self.stacks.values():
                if stack.name == name_or_id and stack.region == region and stack.status != "DELETE_COMPLETE":
                    return stack
        raise TemplateError(f"Stack with id {name_or_id} does not exist")

    def all(self, region: str) -> list[Stack]:
        """Return every stack of the region, deleted ones included, newest first."""
        with self._lock:
            return [stack for stack in reversed(self.stacks.values()) if stack.region == region]

    def owner(self, physical_id: str, region: str) -> Stack:
        """Return the stack that a live resource belongs to."""
        for stack in self.all(region):
            if any(item.physical_id == physical_id for item in stack.resources.values()):
                return stack
        raise TemplateError(f"Stack for {physical_id} does not exist")

    def exports(self, region: str) -> dict[str, tuple[Stack, str]]:
        """Return the exported values of the region by name."""
        return {
            output["ExportName"]: (stack, output["OutputValue"])
            for stack in self.all(region)
            if stack.status != "DELETE_COMPLETE"
            for output in stack.outputs
            if "ExportName" in output
        }

    def build(self, stack: Stack, text: str, given: dict[str, str]) -> Model:
        """Return the model of ``text`` for ``stack``."""

        def read_ssm(name: str) -> str:
            client = self.aws.client("ssm", stack.region)
            try:
                return str(client.get_parameter(Name=name)["Parameter"]["Value"])
            except client.exceptions.ParameterNotFound as error:
                raise TemplateError(f"Parameters: the SSM parameter {name} does not exist") from error

        def import_value(name: str) -> str:
            exports = self.exports(stack.region)
            if name not in exports:
                raise TemplateError(f"No export named {name} found.")
            stack.imports.add(name)
            return exports[name][1]

        return models.build(text, given, self._pseudo(stack), read_ssm=read_ssm, import_value=import_value)

    def _pseudo(self, stack: Stack) -> dict[str, Any]:
        return {
            "AWS::AccountId": self.aws.account_id,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": stack.region,
            "AWS::StackId": stack.id,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }

    def new_stack(self, name: str, region: str, **settings: Any) -> Stack:
        """Register a new stack under review."""
        if not re.fullmatch(r"[A-Za-z][-A-Za-z0-9]{0,127}", name):
            raise TemplateError(f"The stack name {name!r} must match [a-zA-Z][-a-zA-Z0-9]* (128 at most)")
        arn = f"arn:aws:cloudformation:{region}:{self.aws.account_id}:stack/{name}/{uuid.uuid4()}"
        stack = Stack(arn, name, region, **settings)
        with self._lock:
            for other in self.stacks.values():
                if other.name == name and other.region == region and other.status != "DELETE_COMPLETE":
                    raise AlreadyExistsError(f"Stack [{name}] already exists")
            self.stacks[arn] = stack
        return stack

    def forget(self, stack: Stack) -> None:
        """Drop a stack that never began."""
        with self._lock:
            self.stacks.pop(stack.id, None)

    # -- change sets ---------------------------------------------------------------------------

    def create_change_set(self, stack: Stack, name: str, kind: str, text: str, **settings: Any) -> ChangeSet:
        """Compare a template with the stack; what is wrong with it is the change set's failure reason."""
        if not re.fullmatch(r"[A-Za-z][-A-Za-z0-9]{0,127}", name):
            raise TemplateError(
                f"The change set name {name!r} must match [a-zA-Z][-a-zA-Z0-9]* (128 at most)"
            )
        with self._lock:
            if any(item.name == name and item.stack is stack for item in self.change_sets.values()):
                raise AlreadyExistsError(f"ChangeSet {name} already exists for stack {stack.id}")
        arn = f"arn:aws:cloudformation:{stack.region}:{self.aws.account_id}:changeSet/{name}/{uuid.uuid4()}"
        given = settings.pop("given")
        built, changes, reason = None, [], None
        try:
            built = self.build(stack, text, given)
            models.require_capabilities(built, settings["capabilities"], expands_at_once=False)
            changes = self._compare(stack, built)
            if kind == "UPDATE" and not changes and self._same_outputs(stack, built):
                reason = (
                    "The submitted information didn't contain changes. "
                    "Submit different information to create a change set."
                )
        except TemplateError as error:
            reason = str(error)
        change_set = ChangeSet(
            arn,
            name,
            kind,
            stack,
            text,
            given,
            built,
            changes,
            "FAILED" if reason else "CREATE_COMPLETE",
            "UNAVAILABLE" if reason else "AVAILABLE",
            reason,
            **settings,
        )
        with self._lock:
            self.change_sets[arn] = change_set
        return change_set

    def find_change_set(self, name_or_id: str, stack_name: str | None, region: str) -> ChangeSet:
        """Return a change set by its ARN, or by its name and stack."""
        with self._lock:
            if name_or_id in self.change_sets:
                return self.change_sets[name_or_id]
            if stack_name:
                stack = self.find(stack_name, region)
                for change_set in self.change_sets.values():
                    if change_set.name == name_or_id and change_set.stack is stack:
                        return change_set
        raise ChangeSetNotFoundError(f"ChangeSet [{name_or_id}] does not exist")

    def execute_change_set(self, change_set: ChangeSet, disable_rollback: bool) -> None:
        """Carry the change set out."""
        with self._lock:
            if change_set.execution_status != "AVAILABLE" or change_set.model is None:
                raise InvalidChangeSetStatusError(
                    f"ChangeSet [{change_set.id}] cannot be executed in its current status of "
                    f"[{change_set.status}]"
                )
            change_set.execution_status = "EXECUTE_IN_PROGRESS"
        stack, model = change_set.stack, change_set.model
        stack.disable_rollback = disable_rollback
        stack.change_set_id = change_set.id
        stack.tags, stack.capabilities = change_set.tags, change_set.capabilities

        def finish() -> None:
            failed = "ROLLBACK" in stack.status or "FAILED" in stack.status
            change_set.execution_status = "EXECUTE_FAILED" if failed else "EXECUTE_COMPLETE"

        if stack.status == "REVIEW_IN_PROGRESS":
            self.create(stack, model, finish)
        else:
            self.update(stack, model, finish)

    def _compare(self, stack: Stack, built: Model) -> list[Change]:
        """Return what executing ``built`` would change, so far as that is known beforehand."""
        changes = []
        seen: dict[str, Any] = dict(stack.resources)
        for logical_id, definition in built.resources.items():
            live = stack.resources.get(logical_id)
            if live is None:
                changes.append(Change("Add", logical_id, None, definition.type, None, []))
                seen[logical_id] = _Unknown(logical_id, definition.type)
                continue
            properties = built.seen_with(seen).resolve(
                definition.properties, f"Resources/{logical_id}/Properties"
            )
            differing = sorted(
                key
                for key in set(properties) | set(live.properties)
                if not same(properties.get(key), live.properties.get(key))
            )
            if definition.type != live.type:
                # Executing it will fail; that is not the same as no change.
                differing.append("Type")
            if differing:
                replaced = set(differing) & resource_types()[definition.type].create_only
                changes.append(
                    Change(
                        "Modify",
                        logical_id,
                        live.physical_id,
                        definition.type,
                        "True" if replaced else "False",
                        ["Properties"],
                    )
                )
                if replaced:
                    seen[logical_id] = _Unknown(logical_id, definition.type)
        for logical_id, live in stack.resources.items():
            if logical_id not in built.resources:
                changes.append(Change("Remove", logical_id, live.physical_id, live.type, None, []))
        return changes

    def nothing_to_do(self, stack: Stack, built: Model) -> bool:
        """Return whether ``built`` is what the stack is already."""
        return not self._compare(stack, built) and self._same_outputs(stack, built)

    def _same_outputs(self, stack: Stack, built: Model) -> bool:
        old = stack.model
        return old is not None and same(built.outputs, old.outputs) and same(built.given, old.given)

    # -- operations ----------------------------------------------------------------------------

    def create(self, stack: Stack, built: Model, after: Callable[[], None] | None = None) -> None:
        """Create the stack's resources."""
        stack.become("CREATE_IN_PROGRESS", "User Initiated")
        self._run(stack, lambda: self._create(stack, built), after)

    def update(self, stack: Stack, built: Model, after: Callable[[], None] | None = None) -> None:
        """Bring the stack to another template or other parameters."""
        with self._lock:
            self._must_be_updatable(stack)
            stack.become("UPDATE_IN_PROGRESS", "User Initiated")
        stack.updated = datetime.now(UTC)
        self._run(stack, lambda: self._update(stack, built), after)

    def delete(self, stack: Stack, retain: set[str]) -> None:
        """Delete the stack and its resources."""
        with self._lock:
            if stack.status == "DELETE_COMPLETE":
                return
            if stack.busy:
                raise TemplateError(f"Stack {stack.id} is in {stack.status} state and can not be deleted.")
            if stack.protected:
                raise TemplateError(
                    f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
                )
            for other in self.all(stack.region):
                used = other.imports & {output.get("ExportName") for output in stack.outputs}
                if other is not stack and used and other.status != "DELETE_COMPLETE":
                    raise TemplateError(
                        f"Export {sorted(map(str, used))[0]} cannot be deleted as it is in use "
                        f"by {other.name}"
                    )
            stack.become("DELETE_IN_PROGRESS", "User Initiated")
        self._run(stack, lambda: self._delete(stack, retain), None)

    def _must_be_updatable(self, stack: Stack) -> None:
        if stack.status not in (
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "UPDATE_FAILED",
            "CREATE_FAILED",
        ):
            raise TemplateError(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")

    def _run(self, stack: Stack, work: Callable[[], None], after: Callable[[], None] | None) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                log.exception("the operation on stack %s broke off", stack.name)
                stack.become(
                    stack.status.replace("_IN_PROGRESS", "_FAILED").replace("_CLEANUP", ""),
                    f"Internal failure: {error}",
                )
            finally:
                if after:
                    after()

        wait([self.aws.submit(guarded)], timeout=PATIENCE_S)

    def _create(self, stack: Stack, built: Model) -> None:
        deployment = _Deployment(self, stack, built)
        try:
            deployment.converge()
        except _OperationFailedError as error:
            if stack.disable_rollback or stack.on_failure == "DO_NOTHING":
                stack.model = built
                stack.become("CREATE_FAILED", str(error))
                return
            deleting = stack.on_failure == "DELETE"
            stack.become("DELETE_IN_PROGRESS" if deleting else "ROLLBACK_IN_PROGRESS", str(error))
            stack.model = built
            clean = deployment.undo()
            if deleting:
                stack.become("DELETE_COMPLETE" if clean else "DELETE_FAILED")
            else:
                stack.become("ROLLBACK_COMPLETE" if clean else "ROLLBACK_FAILED")
            return
        stack.model = built
        stack.become("CREATE_COMPLETE")

    def _update(self, stack: Stack, built: Model) -> None:
        deployment = _Deployment(self, stack, built)
        before = stack.outputs
        try:
            deployment.converge()
        except _OperationFailedError as error:
            stack.outputs = before
            if stack.disable_rollback:
                stack.model = built
                stack.become("UPDATE_FAILED", str(error))
                return
            stack.become("UPDATE_ROLLBACK_IN_PROGRESS", str(error))
            clean = deployment.undo()
            stack.become("UPDATE_ROLLBACK_COMPLETE" if clean else "UPDATE_ROLLBACK_FAILED")
            return
        stack.model = built
        stack.become("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        deployment.clean_up()
        stack.become("UPDATE_COMPLETE")

    def _delete(self, stack: Stack, retain: set[str]) -> None:
        failed = []
        for live in _newest_dependents_first(stack.resources):
            # RetainExceptOnCreate differs from Retain only where a creation is rolled back.
            if live.definition.deletion_policy in _RETAINING or live.logical_id in retain:
                stack.tell(live.logical_id, live.physical_id, live.type, "DELETE_SKIPPED")
                stack.resources.pop(live.logical_id, None)
            elif not self.remove(stack, live):
                failed.append(live.logical_id)
        if failed:
            stack.become(
                "DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(failed)}]. "
            )
            return
        stack.deleted = datetime.now(UTC)
        stack.outputs = []
        stack.become("DELETE_COMPLETE")

    def remove(self, stack: Stack, live: Resource, *, registered: bool = True) -> bool:
        """Delete one resource, tell the history, and return whether it went."""
        site = self.site(stack, live.logical_id)
        _mark(stack, live, "DELETE_IN_PROGRESS")
        try:
            resource_types()[live.type].delete(site, live.physical_id, live.properties)
        except Exception as error:
            _mark(stack, live, "DELETE_FAILED", _reason(error))
            return False
        _mark(stack, live, "DELETE_COMPLETE")
        if registered:
            stack.resources.pop(live.logical_id, None)
        return True

    def site(self, stack: Stack, logical_id: str) -> Site:
        """Return the place in which a resource of ``stack`` is made."""
        return Site(
            self.aws, stack.region, self.aws.account_id, "aws", stack.name, stack.id, logical_id, self
        )

    # -- nested stacks -------------------------------------------------------------------------

    def create_nested(self, site: Site, text: str, given: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Create a nested stack; a failure carries the nested stack's reason."""
        parent = self.stacks[site.stack_id]
        stack = self.new_stack(
            site.name(128), site.region, parent_id=parent.id, root_id=parent.root_id or parent.id
        )
        try:
            built = self.build(stack, text, given)
        except TemplateError:
            self.forget(stack)
            raise
        stack.become("CREATE_IN_PROGRESS")
        self._create(stack, built)
        if stack.status != "CREATE_COMPLETE":
            reason = _first_failure(stack)
            # The parent never had it, so its rollback will not take it away.
            stack.become("DELETE_IN_PROGRESS")
            self._delete(stack, set())
            raise ResourceError(f"Embedded stack {stack.id} was not successfully created: {reason}")
        return stack.id, {output["OutputKey"]: output["OutputValue"] for output in stack.outputs}

    def update_nested(
        self, site: Site, stack_id: str, text: str, given: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        """Update a nested stack."""
        stack = self.stacks[stack_id]
        built = self.build(stack, text, given)
        mark = len(stack.events)
        stack.become("UPDATE_IN_PROGRESS")
        self._update(stack, built)
        if stack.status != "UPDATE_COMPLETE":
            reason = _first_failure(stack, mark)
            raise ResourceError(f"Embedded stack {stack.id} was not successfully updated: {reason}")
        return stack.id, {output["OutputKey"]: output["OutputValue"] for output in stack.outputs}

    def delete_nested(self, site: Site, stack_id: str) -> None:
        """Delete a nested stack."""
        stack = self.stacks[stack_id]
        if stack.status == "DELETE_COMPLETE":
            return
        mark = len(stack.events)
        stack.become("DELETE_IN_PROGRESS")
        self._delete(stack, set())
        if stack.status != "DELETE_COMPLETE":
            raise ResourceError(f"Embedded stack {stack_id} was not deleted: {_first_failure(stack, mark)}")


class _Deployment:
    """One attempt to bring a stack to a model, with what it takes to go back."""

    def __init__(self, engine: Engine, stack: Stack, built: Model) -> None:
        self.engine = engine
        self.stack = stack
        self.built = built
        self._undo: list[Callable[[], bool]] = []
        self._replaced: list[Resource] = []

    def converge(self) -> None:
        """Create, update or replace every resource in order, then resolve the outputs."""
        self._refuse_ignored_properties()
        for definition in self.built.resources.values():
            self._one(definition)
        self._resolve_outputs()

    def undo(self) -> bool:
        """Go back through every step taken; return whether all of them could be undone."""
        undone = [step() for step in reversed(self._undo)]
        return all(undone)

    def clean_up(self) -> None:
        """Delete what was replaced or is no longer in the template; failures are told, not fatal."""
        for live in reversed(self._replaced):
            if live.definition.update_replace_policy == "Retain":
                self.stack.tell(live.logical_id, live.physical_id, live.type, "DELETE_SKIPPED")
            else:
                self.engine.remove(self.stack, live, registered=False)
        for live in _newest_dependents_first(self.stack.resources):
            if live.logical_id in self.built.resources:
                continue
            if live.definition.deletion_policy in _RETAINING:
                self.stack.tell(live.logical_id, live.physical_id, live.type, "DELETE_SKIPPED")
            else:
                self.engine.remove(self.stack, live, registered=False)
            # CloudFormation gives up a resource that it cannot delete during clean-up.
            self.stack.resources.pop(live.logical_id, None)

    def _refuse_ignored_properties(self) -> None:
        """Fail before anything is made if any property of any resource would be ignored."""
        failed = []
        for definition in self.built.resources.values():
            names = {
                key
                for key, value in definition.properties.items()
                if not (isinstance(value, dict) and value == {"Ref": "AWS::NoValue"})
            }
            problems = resource_types()[definition.type].check(dict.fromkeys(names))
            for problem in problems:
                self.stack.tell(definition.logical_id, "", definition.type, "CREATE_FAILED", problem)
            if problems:
                failed.append(definition.logical_id)
        if failed:
            raise _OperationFailedError(
                f"The following resource(s) failed to create: [{', '.join(failed)}]. "
            )

    def _one(self, definition: Definition) -> None:
        live = self.stack.resources.get(definition.logical_id)
        try:
            self._bring(definition, live)
        except Exception as error:
            verb = "CREATE" if live is None else "UPDATE"
            if not isinstance(error, ResourceError | TemplateError):
                log.exception("%s of %s broke off", verb, definition.logical_id)
            reason = _reason(error)
            physical_id = live.physical_id if live else ""
            self.stack.tell(definition.logical_id, physical_id, definition.type, f"{verb}_FAILED", reason)
            raise _OperationFailedError(
                f"The following resource(s) failed to {verb.lower()}: [{definition.logical_id}]. "
            ) from error

    def _bring(self, definition: Definition, live: Resource | None) -> None:
        """Create, change or replace one resource as its resolved properties demand."""
        if self.engine.aws.stopping.is_set():
            raise ResourceError("the embedded AWS is stopping")
        properties = self.built.seen_with(self.stack.resources).resolve(
            definition.properties, f"Resources/{definition.logical_id}/Properties"
        )
        handler = resource_types()[definition.type]
        problems = handler.check(properties)
        if problems:
            raise ResourceError("; ".join(problems))
        if live is None:
            self._make(definition, properties)
            return
        if live.type != definition.type:
            raise ResourceError(
                f"Update of resource type is not permitted: {live.type} to {definition.type}. "
                "Give the new resource another logical id."
            )
        changed = {
            key
            for key in set(properties) | set(live.properties)
            if not same(properties.get(key), live.properties.get(key))
        }
        if not changed:
            self._adopt_policies(live, definition)
        elif changed & handler.create_only:
            self._replace(live, definition, properties)
        else:
            self._modify(live, definition, properties)

    def _adopt_policies(self, live: Resource, definition: Definition) -> None:
        previous = live.definition
        live.definition = definition

        def restore() -> bool:
            live.definition = previous
            return True

        self._undo.append(restore)

    def _make(self, definition: Definition, properties: dict[str, Any]) -> Resource:
        stack, kind = self.stack, definition.type
        stack.tell(definition.logical_id, "", kind, "CREATE_IN_PROGRESS", properties=str(properties))
        made = resource_types()[kind].create(self.engine.site(stack, definition.logical_id), properties)
        live = _resource(definition, properties, made, "CREATE_COMPLETE")
        replaced = stack.resources.get(definition.logical_id)
        stack.resources[definition.logical_id] = live
        stack.tell(definition.logical_id, live.physical_id, kind, "CREATE_COMPLETE")

        def unmake() -> bool:
            if replaced is not None:
                stack.resources[definition.logical_id] = replaced
                same_thing = replaced.physical_id == live.physical_id
                return True if same_thing else self.engine.remove(stack, live, registered=False)
            if definition.deletion_policy == "Retain":
                stack.tell(definition.logical_id, live.physical_id, kind, "DELETE_SKIPPED")
                stack.resources.pop(definition.logical_id, None)
                return True
            return self.engine.remove(stack, live)

        self._undo.append(unmake)
        return live

    def _replace(self, live: Resource, definition: Definition, properties: dict[str, Any]) -> None:
        self.stack.tell(
            live.logical_id,
            live.physical_id,
            live.type,
            "UPDATE_IN_PROGRESS",
            "Requested update requires the creation of a new physical resource; hence creating one.",
        )
        made = self._make(definition, properties)
        self.stack.tell(made.logical_id, made.physical_id, made.type, "UPDATE_COMPLETE")
        made.status = "UPDATE_COMPLETE"
        if made.physical_id != live.physical_id:
            self._replaced.append(live)

    def _modify(self, live: Resource, definition: Definition, properties: dict[str, Any]) -> None:
        stack, handler = self.stack, resource_types()[definition.type]
        site = self.engine.site(stack, definition.logical_id)

        def restore() -> bool:
            _mark(stack, live, "UPDATE_IN_PROGRESS")
            try:
                back = handler.update(site, live.physical_id, properties, live.properties)
            except Exception as error:
                _mark(stack, live, "UPDATE_FAILED", _reason(error))
                return False
            live.physical_id, live.attributes = back.physical_id, dict(back.attributes)
            stack.resources[live.logical_id] = live
            _mark(stack, live, "UPDATE_COMPLETE")
            return True

        # Before the attempt: an update that fails half way has changed something too.
        self._undo.append(restore)
        stack.tell(
            live.logical_id, live.physical_id, live.type, "UPDATE_IN_PROGRESS", properties=str(properties)
        )
        made = handler.update(site, live.physical_id, live.properties, properties)
        stack.resources[live.logical_id] = _resource(definition, properties, made, "UPDATE_COMPLETE")
        stack.tell(live.logical_id, made.physical_id, live.type, "UPDATE_COMPLETE")

    def _resolve_outputs(self) -> None:
        try:
            self.stack.outputs = [self._output(name, text) for name, text in self.built.outputs.items()]
        except TemplateError as error:
            raise _OperationFailedError(str(error)) from error

    def _output(self, name: str, output: dict[str, Any]) -> dict[str, str]:
        scope = self.built.seen_with(self.stack.resources)
        value = scope.resolve(output.get("Value"), f"Outputs/{name}/Value")
        if isinstance(value, dict | list):
            raise TemplateError(f"Template format error: the Value of Outputs/{name} must be a string")
        entry = {"OutputKey": name, "OutputValue": as_text(value)}
        if "Description" in output:
            entry["Description"] = str(output["Description"])
        if "Export" in output:
            export = str(scope.resolve(output["Export"]["Name"], f"Outputs/{name}/Export"))
            taken = self.engine.exports(self.stack.region)
            if export in taken and taken[export][0] is not self.stack:
                owner = taken[export][0].name
                raise TemplateError(f"Export with name {export} is already exported by stack {owner}.")
            entry["ExportName"] = export
        return entry


@dataclass(frozen=True)
class _Unknown:
    """Stands in a change set for a resource that does not exist yet."""

    logical_id: str
    type: str

    @property
    def physical_id(self) -> str:
        return f"{{{{changeSet:KNOWN_AFTER_APPLY:{self.logical_id}}}}}"

    @property
    def attributes(self) -> Any:
        return _AnyAttribute(self.physical_id)


class _AnyAttribute(dict[str, str]):
    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> str:
        return self._value


def _resource(definition: Definition, properties: dict[str, Any], made: Created, status: str) -> Resource:
    return Resource(
        definition.logical_id,
        definition.type,
        made.physical_id,
        dict(made.attributes),
        properties,
        definition,
        status,
    )


def _mark(stack: Stack, live: Resource, status: str, reason: str | None = None) -> None:
    live.status, live.reason, live.changed = status, reason, datetime.now(UTC)
    stack.tell(live.logical_id, live.physical_id, live.type, status, reason)


def _newest_dependents_first(resources: dict[str, Resource]) -> list[Resource]:
    """Return the resources so that each comes before all that it depends on."""
    left = dict(resources)
    order: list[Resource] = []
    while left:
        needed = {name for item in left.values() for name in item.definition.depends_on}
        free = [item for name, item in left.items() if name not in needed]
        # A cycle can only come from definitions of different templates; then any order must do.
        for item in reversed(free or list(left.values())):
            order.append(item)
            del left[item.logical_id]
    return order


def _reason(error: Exception) -> str:
    if isinstance(error, ResourceError | TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _first_failure(stack: Stack, since: int = 0) -> str:
    for event in stack.events[since:]:
        if event.status.endswith("_FAILED") and event.reason:
            return f"{event.logical_id} ({event.type}): {event.reason}"
    return stack.reason or stack.status
