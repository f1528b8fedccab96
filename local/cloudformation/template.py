"""Read a CloudFormation template: YAML or JSON text, its parameters and their constraints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from local.cloudformation.errors import TemplateError

SECTIONS = frozenset(
    {
        "AWSTemplateFormatVersion",
        "Conditions",
        "Description",
        "Globals",
        "Mappings",
        "Metadata",
        "Outputs",
        "Parameters",
        "Resources",
        "Rules",
        "Transform",
    }
)
_SHORT_TAGS_WITHOUT_PREFIX = {"Ref", "Condition"}
SsmReader = Callable[[str], str]
"""Reads the value of one SSM parameter by its name."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML with CloudFormation's short tags; dates stay strings; a repeated key is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _short_tag(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in _SHORT_TAGS_WITHOUT_PREFIX else f"Fn::{suffix}": value}


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise TemplateError(
                f"Template format error: the key {key!r} is given twice (line {key_node.start_mark.line + 1})"
            )
        seen.add(key)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


_Loader.add_multi_constructor("!", _short_tag)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_document(text: str) -> Any:
    """Return the value that JSON or YAML ``text`` (with CloudFormation's short tags) stands for."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from the safe loader
        except yaml.YAMLError as error:
            raise TemplateError(f"Template format error: not well-formed YAML or JSON: {error}") from error


def parse(text: str) -> dict[str, Any]:
    """Return the template as a dict, or say what is wrong with its outline."""
    template = load_document(text)
    if not isinstance(template, dict):
        raise TemplateError("Template format error: the template is not an object")
    unknown = sorted(str(key) for key in template if key not in SECTIONS)
    if unknown:
        raise TemplateError(f"Invalid template property or properties [{', '.join(unknown)}]")
    resources = template.get("Resources")
    if not isinstance(resources, dict) or not resources:
        raise TemplateError("Template format error: at least one Resources member must be defined.")
    for logical_id, resource in resources.items():
        if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
            raise TemplateError(f"Template format error: [/Resources/{logical_id}] has no Type")
        if not re.fullmatch(r"[A-Za-z0-9]{1,255}", str(logical_id)):
            raise TemplateError(
                f"Template format error: Resource name {logical_id} is not alphanumeric (255 at most)."
            )
    return template


def resolve_parameters(
    template: dict[str, Any], given: dict[str, str], read_ssm: SsmReader
) -> dict[str, Any]:
    """Return every parameter's value, defaults applied and constraints checked."""
    declared: dict[str, Any] = template.get("Parameters") or {}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    missing = sorted(name for name, slot in declared.items() if name not in given and "Default" not in slot)
    if missing:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    values = {}
    for name, slot in declared.items():
        value = as_text(given.get(name, slot.get("Default")))
        kind = str(slot.get("Type", "String"))
        if kind.startswith("AWS::SSM::Parameter::Value<"):
            value = read_ssm(value)
            kind = kind.removeprefix("AWS::SSM::Parameter::Value<")[:-1]
        _check(name, value, kind, slot)
        is_list = kind == "CommaDelimitedList" or kind.startswith("List<")
        values[name] = [part.strip() for part in value.split(",")] if is_list else value
    return values


def as_text(value: Any) -> str:
    """Return a scalar as CloudFormation writes it into a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check(name: str, value: str, kind: str, slot: dict[str, Any]) -> None:
    def refuse(rule: str) -> None:
        said = slot.get("ConstraintDescription") or rule
        shown = "****" if as_text(slot.get("NoEcho", False)) == "true" else value
        raise TemplateError(f"Parameter '{name}': the value {shown!r} must satisfy constraint: {said}")

    parts = [part.strip() for part in value.split(",")] if "List" in kind else [value]
    for part in parts:
        allowed = slot.get("AllowedValues")
        if allowed is not None and part not in [as_text(item) for item in allowed]:
            refuse(f"one of [{', '.join(as_text(item) for item in allowed)}]")
        if "AllowedPattern" in slot and not re.fullmatch(str(slot["AllowedPattern"]), part):
            refuse(f"the pattern {slot['AllowedPattern']}")
        if "Number" in kind:
            try:
                number = float(part)
            except ValueError:
                refuse("a number")
            if number < float(slot.get("MinValue", "-inf")) or number > float(slot.get("MaxValue", "inf")):
                refuse(f"between {slot.get('MinValue', '-inf')} and {slot.get('MaxValue', 'inf')}")
    if len(value) < int(slot.get("MinLength", 0)) or len(value) > int(slot.get("MaxLength", 4096)):
        refuse(f"length between {slot.get('MinLength', 0)} and {slot.get('MaxLength', 4096)}")
