"""A template made ready to deploy: expanded, its parameters resolved, its resources in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from local.cloudformation import sam, template
from local.cloudformation.errors import InsufficientCapabilitiesError, TemplateError
from local.cloudformation.intrinsics import Scope, references
from local.cloudformation.resources import resource_types

_RESOURCE_KEYS = frozenset(
    {
        "Condition",
        "CreationPolicy",
        "DeletionPolicy",
        "DependsOn",
        "Metadata",
        "Properties",
        "Type",
        "UpdatePolicy",
        "UpdateReplacePolicy",
    }
)
_POLICIES = frozenset({"Delete", "Retain", "RetainExceptOnCreate"})


@dataclass(frozen=True)
class Definition:
    """One resource as the template writes it."""

    logical_id: str
    type: str
    properties: dict[str, Any]
    depends_on: frozenset[str]
    deletion_policy: str
    update_replace_policy: str
    metadata: Any


@dataclass(frozen=True)
class Model:
    """All that a stack operation needs of one template with its parameters."""

    text: str
    expanded: dict[str, Any]
    parameters: dict[str, Any]
    given: dict[str, str]
    no_echo: frozenset[str]
    scope: Scope
    resources: dict[str, Definition]
    """In the order in which they can be created."""

    @property
    def outputs(self) -> dict[str, Any]:
        """The template's outputs whose condition holds."""
        outputs = self.expanded.get("Outputs") or {}
        return {
            name: output
            for name, output in outputs.items()
            if "Condition" not in output or self.scope.holds(output["Condition"])
        }

    def seen_with(self, resources: Mapping[str, Any]) -> Scope:
        """Return the scope in which ``resources`` exist."""
        return replace(self.scope, resources=resources)


def build(
    text: str,
    given: dict[str, str],
    pseudo: dict[str, Any],
    *,
    read_ssm: Callable[[str], str],
    import_value: Callable[[str], str],
) -> Model:
    """Return the model of ``text`` with the parameters ``given``, or raise what AWS would say at once."""
    parsed = template.parse(text)
    parameters = template.resolve_parameters(parsed, given, read_ssm)
    if parsed.get("Rules"):
        raise TemplateError("Template error: the section Rules is not supported by the embedded AWS")
    expanded = sam.expand(parsed, parameters, str(pseudo["AWS::Region"]))
    scope = Scope(
        pseudo=pseudo,
        parameters=parameters,
        mappings=expanded.get("Mappings") or {},
        conditions=expanded.get("Conditions") or {},
        import_value=import_value,
        read_ssm=read_ssm,
    )
    for name in scope.conditions:
        scope.holds(name)
    active = {
        logical_id: resource
        for logical_id, resource in expanded["Resources"].items()
        if "Condition" not in resource or scope.holds(resource["Condition"])
    }
    _check(expanded, active)
    declared = parsed.get("Parameters") or {}
    return Model(
        text=text,
        expanded=expanded,
        parameters=parameters,
        given=dict(given),
        no_echo=frozenset(
            name for name, slot in declared.items() if template.as_text(slot.get("NoEcho", False)) == "true"
        ),
        scope=scope,
        resources=_ordered(expanded, active),
    )


def _check(expanded: dict[str, Any], active: dict[str, Any]) -> None:
    unknown = sorted({resource["Type"] for resource in active.values()} - set(resource_types()))
    if unknown:
        places = [f"{name} ({item['Type']})" for name, item in active.items() if item["Type"] in unknown]
        raise TemplateError(
            f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]. The embedded AWS "
            f"cannot create {', '.join(places)}"
        )
    for logical_id, resource in active.items():
        odd = sorted(set(resource) - _RESOURCE_KEYS)
        if odd:
            raise TemplateError(f"Invalid template resource property '{odd[0]}' at Resources/{logical_id}")
        for key in ("CreationPolicy", "UpdatePolicy"):
            if key in resource:
                raise TemplateError(f"Resources/{logical_id}: {key} is not supported by the embedded AWS")
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if resource.get(key, "Delete") not in _POLICIES:
                raise TemplateError(
                    f"Resources/{logical_id}: {key} {resource[key]!r} is not supported (only "
                    f"{', '.join(sorted(_POLICIES))})"
                )
    known = set(expanded["Resources"]) | set(expanded.get("Parameters") or {})
    for section in ("Resources", "Outputs"):
        for name, item in (expanded.get(section) or {}).items():
            missing = sorted(
                found for found in set(references(item)) - known if not found.startswith("AWS::")
            )
            if missing:
                raise TemplateError(
                    f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the "
                    f"{section} block of the template ({name})"
                )


def _ordered(expanded: dict[str, Any], active: dict[str, Any]) -> dict[str, Definition]:
    needs: dict[str, set[str]] = {}
    for logical_id, resource in active.items():
        explicit = resource.get("DependsOn", [])
        explicit = {explicit} if isinstance(explicit, str) else set(explicit)
        missing = sorted(explicit - set(expanded["Resources"]))
        if missing:
            raise TemplateError(
                f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the "
                f"Resources block of the template ({logical_id})"
            )
        needs[logical_id] = (explicit | set(references(resource.get("Properties") or {}))) & set(active)
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise TemplateError(
            f"Circular dependency between resources: [{', '.join(sorted(set(error.args[1])))}]"
        ) from error
    return {
        logical_id: Definition(
            logical_id,
            active[logical_id]["Type"],
            active[logical_id].get("Properties") or {},
            frozenset(needs[logical_id]),
            active[logical_id].get("DeletionPolicy", "Delete"),
            active[logical_id].get("UpdateReplacePolicy", "Delete"),
            active[logical_id].get("Metadata"),
        )
        for logical_id in order
    }


def require_capabilities(model: Model, granted: list[str], *, expands_at_once: bool) -> None:
    """Refuse, as AWS does, IAM resources and macros that the caller did not acknowledge.

    Parameters
    ----------
    expands_at_once
        True for CreateStack and UpdateStack; a change set shows the expanded template first, so it
        needs no CAPABILITY_AUTO_EXPAND.
    """
    needed = set()
    for definition in model.resources.values():
        name = resource_types()[definition.type].needs_named_iam
        if name is not None:
            named = bool(name) and name in definition.properties
            needed.add("CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM")
    if "CAPABILITY_NAMED_IAM" in needed:
        needed.discard("CAPABILITY_IAM")
    if "CAPABILITY_NAMED_IAM" in granted:
        needed.discard("CAPABILITY_IAM")
    if expands_at_once and sam.transforms(template.parse(model.text)):
        needed.add("CAPABILITY_AUTO_EXPAND")
    missing = sorted(needed - set(granted))
    if missing:
        raise InsufficientCapabilitiesError(f"Requires capabilities : [{', '.join(missing)}]")


def same(one: Any, other: Any) -> bool:
    """Return whether two property values are equal as the services would see them."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)
