"""CloudFormation's API over the engine, in moto's request and response machinery."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from local.cloudformation import summary as summaries
from local.cloudformation.errors import ResourceError, TemplateError
from local.cloudformation.model import require_capabilities
from local.cloudformation.resources.nested import read_s3_url
from local.cloudformation.stacks import ChangeSet, Engine, Event, Resource, Stack

PAGE = 100
"""Entries in one page of a list, as on AWS."""


class CloudFormationApi(BaseResponse):
    """One request to CloudFormation; any other operation than these answers NotImplemented."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    # -- stacks --------------------------------------------------------------------------------

    def create_stack(self) -> ActionResult:
        """CreateStack."""
        text, given, capabilities = (
            self._template(None),
            self._given(None),
            self._get_param("Capabilities", []),
        )
        stack = self.engine.new_stack(
            self._get_param("StackName"),
            self.region,
            tags=self._tags(),
            capabilities=capabilities,
            role_arn=self._get_param("RoleARN"),
            disable_rollback=bool(self._get_bool_param("DisableRollback", False)),
            on_failure=self._get_param("OnFailure", "ROLLBACK"),
            protected=bool(self._get_bool_param("EnableTerminationProtection", False)),
        )
        try:
            built = self.engine.build(stack, text, given)
            require_capabilities(built, capabilities, expands_at_once=True)
        except Exception:
            self.engine.forget(stack)
            raise
        self.engine.create(stack, built)
        return ActionResult({"StackId": stack.id})

    def update_stack(self) -> ActionResult:
        """UpdateStack."""
        stack = self._stack()
        built = self.engine.build(stack, self._template(stack), self._given(stack))
        capabilities = self._get_param("Capabilities", [])
        require_capabilities(built, capabilities, expands_at_once=True)
        if self.engine.nothing_to_do(stack, built):
            raise TemplateError("No updates are to be performed.")
        stack.disable_rollback = bool(self._get_bool_param("DisableRollback", False))
        stack.capabilities = capabilities
        stack.tags = self._tags() or stack.tags
        self.engine.update(stack, built)
        return ActionResult({"StackId": stack.id})

    def delete_stack(self) -> ActionResult:
        """DeleteStack; a stack that does not exist is deleted already."""
        try:
            stack = self._stack()
        except TemplateError:
            return EmptyResult()
        self.engine.delete(stack, set(self._get_param("RetainResources", [])))
        return EmptyResult()

    def describe_stacks(self) -> ActionResult:
        """DescribeStacks."""
        if self._get_param("StackName"):
            return ActionResult({"Stacks": [_stack(self._stack())]})
        live = [stack for stack in self.engine.all(self.region) if stack.status != "DELETE_COMPLETE"]
        page, token = self._page(live)
        return ActionResult({"Stacks": [_stack(stack) for stack in page], **token})

    def list_stacks(self) -> ActionResult:
        """ListStacks."""
        wanted = self._get_param("StackStatusFilter", [])
        stacks = [stack for stack in self.engine.all(self.region) if not wanted or stack.status in wanted]
        page, token = self._page(stacks)
        return ActionResult({"StackSummaries": [_summary(stack) for stack in page], **token})

    def update_termination_protection(self) -> ActionResult:
        """UpdateTerminationProtection."""
        stack = self._stack()
        stack.protected = bool(self._get_bool_param("EnableTerminationProtection"))
        return ActionResult({"StackId": stack.id})

    # -- what is in a stack --------------------------------------------------------------------

    def describe_stack_events(self) -> ActionResult:
        """DescribeStackEvents, newest first."""
        page, token = self._page(self._stack().events[::-1])
        return ActionResult({"StackEvents": [_event(event) for event in page], **token})

    def describe_stack_resources(self) -> ActionResult:
        """DescribeStackResources."""
        physical_id, name = self._get_param("PhysicalResourceId"), self._get_param("LogicalResourceId")
        stack = self._stack() if physical_id is None else self.engine.owner(physical_id, self.region)
        found = [item for item in stack.resources.values() if name in (None, item.logical_id)]
        return ActionResult({"StackResources": [_resource(stack, item) for item in found]})

    def describe_stack_resource(self) -> ActionResult:
        """DescribeStackResource."""
        stack, name = self._stack(), self._get_param("LogicalResourceId")
        if name not in stack.resources:
            raise TemplateError(f"Resource {name} does not exist for stack {stack.name}")
        item = stack.resources[name]
        detail = _resource(stack, item) | {"LastUpdatedTimestamp": item.changed}
        return ActionResult({"StackResourceDetail": detail})

    def list_stack_resources(self) -> ActionResult:
        """ListStackResources."""
        stack = self._stack()
        page, token = self._page(list(stack.resources.values()))
        entries = [_resource(stack, item) | {"LastUpdatedTimestamp": item.changed} for item in page]
        return ActionResult({"StackResourceSummaries": entries, **token})

    def get_template(self) -> ActionResult:
        """GetTemplate: the text as submitted, or expanded with TemplateStage=Processed."""
        if self._get_param("ChangeSetName"):
            change_set = self._change_set()
            text, model = change_set.text, change_set.model
        else:
            model = self._stack().model
            if model is None:
                raise TemplateError(f"Stack {self._get_param('StackName')} has no template yet")
            text = model.text
        processed = self._get_param("TemplateStage", "Original") == "Processed" and model is not None
        body = summaries.as_json(model.expanded) if processed and model else text
        # A nested template's URL names S3 by the endpoint through which it was uploaded. `sam delete`
        # knows only AWS's own endpoints by sight.
        port = self.engine.aws.port
        body = re.sub(
            rf"http://(localhost|127\.0\.0\.1):{port}/(?=[a-z0-9][a-z0-9.-]+/)",
            f"https://s3.{self.region}.amazonaws.com/",
            body,
        )
        return ActionResult({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})

    def get_template_summary(self) -> ActionResult:
        """GetTemplateSummary."""
        if self._get_param("StackName"):
            model = self._stack().model
            if model is None:
                raise TemplateError("GetTemplateSummary cannot be called on REVIEW_IN_PROGRESS stacks.")
            text = model.text
        else:
            text = self._template(None)
        return ActionResult(summaries.summary(text))

    def validate_template(self) -> ActionResult:
        """ValidateTemplate."""
        return ActionResult(summaries.validation(self._template(None)))

    def list_exports(self) -> ActionResult:
        """ListExports."""
        entries = [
            {"ExportingStackId": stack.id, "Name": name, "Value": value}
            for name, (stack, value) in sorted(self.engine.exports(self.region).items())
        ]
        page, token = self._page(entries)
        return ActionResult({"Exports": page, **token})

    def list_imports(self) -> ActionResult:
        """ListImports."""
        name = self._get_param("ExportName")
        users = [
            stack.name
            for stack in self.engine.all(self.region)
            if name in stack.imports and stack.status != "DELETE_COMPLETE"
        ]
        if not users:
            raise TemplateError(f"Export '{name}' is not imported by any stack.")
        return ActionResult({"Imports": users})

    # -- change sets ---------------------------------------------------------------------------

    def create_change_set(self) -> ActionResult:
        """CreateChangeSet."""
        kind, name = self._get_param("ChangeSetType", "UPDATE"), self._get_param("StackName")
        if kind == "CREATE":
            stack = self._new_or_reviewed(name)
        elif kind == "UPDATE":
            stack = self._stack()
            if stack.status == "REVIEW_IN_PROGRESS":
                raise TemplateError(f"Stack [{name}] does not exist yet: use the change set type CREATE")
        else:
            raise TemplateError(f"The change set type {kind} is not supported by the embedded AWS")
        change_set = self.engine.create_change_set(
            stack,
            self._get_param("ChangeSetName"),
            kind,
            self._template(stack),
            given=self._given(stack),
            description=self._get_param("Description"),
            tags=self._tags(),
            capabilities=self._get_param("Capabilities", []),
            role_arn=self._get_param("RoleARN"),
        )
        return ActionResult({"Id": change_set.id, "StackId": stack.id})

    def _new_or_reviewed(self, name: str) -> Stack:
        try:
            stack = self._stack()
        except TemplateError:
            stack = self.engine.new_stack(name, self.region, tags=self._tags())
            stack.become("REVIEW_IN_PROGRESS", "User Initiated")
            return stack
        if stack.status != "REVIEW_IN_PROGRESS":
            raise TemplateError(
                f"Stack [{name}] already exists and cannot be created again with the changeSet "
                f"[{self._get_param('ChangeSetName')}]."
            )
        return stack

    def describe_change_set(self) -> ActionResult:
        """DescribeChangeSet."""
        return ActionResult(_change_set(self._change_set()))

    def list_change_sets(self) -> ActionResult:
        """ListChangeSets."""
        stack = self._stack()
        found = [item for item in self.engine.change_sets.values() if item.stack is stack]
        return ActionResult({"Summaries": [_change_set(item) for item in found]})

    def delete_change_set(self) -> ActionResult:
        """DeleteChangeSet."""
        self.engine.change_sets.pop(self._change_set().id, None)
        return EmptyResult()

    def execute_change_set(self) -> ActionResult:
        """ExecuteChangeSet."""
        no_rollback = bool(self._get_bool_param("DisableRollback", False))
        self.engine.execute_change_set(self._change_set(), no_rollback)
        return EmptyResult()

    # -- parameters of requests ----------------------------------------------------------------

    def _stack(self) -> Stack:
        return self.engine.find(self._get_param("StackName"), self.region)

    def _change_set(self) -> ChangeSet:
        name, stack_name = self._get_param("ChangeSetName"), self._get_param("StackName")
        return self.engine.find_change_set(name, stack_name, self.region)

    def _tags(self) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self._get_param("Tags", [])}

    def _template(self, stack: Stack | None) -> str:
        body, url = self._get_param("TemplateBody"), self._get_param("TemplateURL")
        if body:
            return str(body)
        if url:
            try:
                return read_s3_url(self.engine.aws.client("s3", self.region), url)
            except ResourceError as error:
                raise TemplateError(str(error)) from error
        if (
            self._get_bool_param("UsePreviousTemplate", False)
            and stack is not None
            and stack.model is not None
        ):
            return stack.model.text
        raise TemplateError("Either Template URL or Template Body must be specified.")

    def _given(self, stack: Stack | None) -> dict[str, str]:
        given = {}
        previous = stack.model.given if stack is not None and stack.model is not None else {}
        for parameter in self._get_param("Parameters", []):
            name = parameter["ParameterKey"]
            if not parameter.get("UsePreviousValue"):
                given[name] = str(parameter.get("ParameterValue", ""))
            elif name in previous:
                given[name] = previous[name]
        return given

    def _page(self, entries: list[Any]) -> tuple[list[Any], dict[str, str]]:
        start = int(self._get_param("NextToken") or 0)
        more = {"NextToken": str(start + PAGE)} if start + PAGE < len(entries) else {}
        return entries[start : start + PAGE], more


def _parameters(stack_or_set: Stack | ChangeSet) -> list[dict[str, str]]:
    model = stack_or_set.model
    if model is None:
        return []
    entries = []
    for name, value in model.parameters.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        entries.append({"ParameterKey": name, "ParameterValue": "****" if name in model.no_echo else text})
    return entries


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _stack(stack: Stack) -> dict[str, Any]:
    return _present(
        StackId=stack.id,
        StackName=stack.name,
        StackStatus=stack.status,
        StackStatusReason=stack.reason,
        Description=stack.model.expanded.get("Description") if stack.model else None,
        Parameters=_parameters(stack),
        Outputs=stack.outputs,
        Capabilities=stack.capabilities,
        Tags=_tag_list(stack.tags),
        CreationTime=stack.created,
        LastUpdatedTime=stack.updated,
        DeletionTime=stack.deleted,
        DisableRollback=stack.disable_rollback,
        RoleARN=stack.role_arn,
        ParentId=stack.parent_id,
        RootId=stack.root_id,
        ChangeSetId=stack.change_set_id,
        EnableTerminationProtection=stack.protected,
        NotificationARNs=[],
        DriftInformation={"StackDriftStatus": "NOT_CHECKED"},
    )


def _summary(stack: Stack) -> dict[str, Any]:
    return _present(
        StackId=stack.id,
        StackName=stack.name,
        StackStatus=stack.status,
        StackStatusReason=stack.reason,
        CreationTime=stack.created,
        LastUpdatedTime=stack.updated,
        DeletionTime=stack.deleted,
        ParentId=stack.parent_id,
        RootId=stack.root_id,
        DriftInformation={"StackDriftStatus": "NOT_CHECKED"},
    )


def _event(event: Event) -> dict[str, Any]:
    return _present(
        EventId=event.id,
        StackId=event.stack_id,
        StackName=event.stack_name,
        LogicalResourceId=event.logical_id,
        PhysicalResourceId=event.physical_id,
        ResourceType=event.type,
        ResourceStatus=event.status,
        ResourceStatusReason=event.reason,
        ResourceProperties=event.properties,
        Timestamp=event.time,
    )


def _resource(stack: Stack, item: Resource) -> dict[str, Any]:
    return _present(
        StackId=stack.id,
        StackName=stack.name,
        LogicalResourceId=item.logical_id,
        PhysicalResourceId=item.physical_id,
        ResourceType=item.type,
        ResourceStatus=item.status,
        ResourceStatusReason=item.reason,
        Timestamp=item.changed,
        DriftInformation={"StackResourceDriftStatus": "NOT_CHECKED"},
    )


def _change_set(change_set: ChangeSet) -> dict[str, Any]:
    return _present(
        ChangeSetId=change_set.id,
        ChangeSetName=change_set.name,
        StackId=change_set.stack.id,
        StackName=change_set.stack.name,
        Description=change_set.description,
        Status=change_set.status,
        ExecutionStatus=change_set.execution_status,
        StatusReason=change_set.reason,
        CreationTime=change_set.created,
        Parameters=_parameters(change_set),
        Capabilities=change_set.capabilities,
        Tags=_tag_list(change_set.tags),
        NotificationARNs=[],
        Changes=[
            {
                "Type": "Resource",
                "ResourceChange": _present(
                    Action=change.action,
                    LogicalResourceId=change.logical_id,
                    PhysicalResourceId=change.physical_id,
                    ResourceType=change.type,
                    Replacement=change.replacement,
                    Scope=change.scope,
                    Details=[],
                ),
            }
            for change in change_set.changes
        ],
    )
